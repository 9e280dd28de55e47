package filter

import (
	"fmt"
	"strings"
)

// A glob is one component of a pattern: what stands between two slashes. Most
// are literal or have one star, and are matched without their tokens.
type glob struct {
	deep           bool // "**": any number of components, none included
	shape          globShape
	prefix, suffix string // literal: prefix; oneStar: both
	tokens         []token
}

type globShape uint8

const (
	shapeLiteral globShape = iota
	shapeOneStar           // prefix*suffix
	shapeTokens
)

type tokenKind uint8

const (
	tokenByte  tokenKind = iota
	tokenAny             // ?
	tokenStar            // *
	tokenClass           // [...]
)

type token struct {
	kind  tokenKind
	char  byte
	class *byteSet
}

// byteSet is the set of bytes that a bracket expression matches.
type byteSet [4]uint64

func (s *byteSet) add(c byte)      { s[c>>6] |= 1 << (c & 63) }
func (s *byteSet) has(c byte) bool { return s[c>>6]>>(c&63)&1 == 1 }

// addRange adds lo to hi, nothing if hi is below lo.
func (s *byteSet) addRange(lo, hi byte) {
	for c := int(lo); c <= int(hi); c++ {
		s.add(byte(c))
	}
}

// foldCase makes the set hold both cases of every letter that it holds one of.
func (s *byteSet) foldCase() {
	for c := byte('a'); c <= 'z'; c++ {
		if s.has(c) || s.has(c-'a'+'A') {
			s.add(c)
			s.add(c - 'a' + 'A')
		}
	}
}

func (s *byteSet) invert() {
	for i := range s {
		s[i] = ^s[i]
	}
}

// parseGlob compiles one component. With ignoreCase the result expects names
// in lower case.
func parseGlob(text string, ignoreCase bool) (glob, error) {
	if len(text) >= 2 && strings.Trim(text, "*") == "" {
		return glob{deep: true}, nil
	}
	tokens, err := parseTokens(text, ignoreCase)
	if err != nil {
		return glob{}, err
	}
	return shapeOf(tokens), nil
}

func parseTokens(text string, ignoreCase bool) ([]token, error) {
	var tokens []token
	for i := 0; i < len(text); {
		switch c := text[i]; c {
		case '*':
			if n := len(tokens); n == 0 || tokens[n-1].kind != tokenStar {
				tokens = append(tokens, token{kind: tokenStar})
			}
			i++
		case '?':
			tokens = append(tokens, token{kind: tokenAny})
			i++
		case '[':
			set, size, err := parseClass(text[i:], ignoreCase)
			if err != nil {
				return nil, err
			}
			tokens = append(tokens, token{kind: tokenClass, class: set})
			i += size
		case '\\':
			if i+1 == len(text) {
				return nil, fmt.Errorf("ends in a backslash that escapes nothing")
			}
			tokens = append(tokens, token{char: lowerIf(text[i+1], ignoreCase)})
			i += 2
		default:
			tokens = append(tokens, token{char: lowerIf(c, ignoreCase)})
			i++
		}
	}
	return tokens, nil
}

// parseClass reads a bracket expression at the start of text and returns its
// size in bytes.
func parseClass(text string, ignoreCase bool) (*byteSet, int, error) {
	set := new(byteSet)
	i, negated := 1, false
	if i < len(text) && (text[i] == '!' || text[i] == '^') {
		negated = true
		i++
	}
	for first := true; ; first = false {
		if i >= len(text) {
			return nil, 0, fmt.Errorf("has a [ without its ]")
		}
		if text[i] == ']' && !first {
			break
		}
		if strings.HasPrefix(text[i:], "[:") {
			size, err := set.addNamed(text[i:])
			if err != nil {
				return nil, 0, err
			}
			i += size
			continue
		}
		lo, size, err := classByte(text[i:])
		if err != nil {
			return nil, 0, err
		}
		i += size
		if i+1 < len(text) && text[i] == '-' && text[i+1] != ']' {
			hi, size, err := classByte(text[i+1:])
			if err != nil {
				return nil, 0, err
			}
			i += 1 + size
			set.addRange(lo, hi)
			continue
		}
		set.add(lo)
	}
	if ignoreCase {
		set.foldCase()
	}
	if negated {
		set.invert()
	}
	return set, i + 1, nil
}

// classByte reads one byte of a bracket expression, escaped or not.
func classByte(text string) (c byte, size int, err error) {
	if text[0] != '\\' {
		return text[0], 1, nil
	}
	if len(text) < 2 {
		return 0, 0, fmt.Errorf("has a [ without its ]")
	}
	return text[1], 2, nil
}

// addNamed adds a class such as [:alpha:] at the start of text and returns its
// size in bytes.
func (s *byteSet) addNamed(text string) (int, error) {
	end := strings.Index(text, ":]")
	if end < 2 {
		return 0, fmt.Errorf("has a [: without its :]")
	}
	name := text[2:end]
	in, known := namedClasses[name]
	if !known {
		return 0, fmt.Errorf("names the character class [:%s:], which does not exist", name)
	}
	for c := 0; c < 128; c++ {
		if in(byte(c)) {
			s.add(byte(c))
		}
	}
	return end + 2, nil
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isAlpha(c byte) bool { return isUpper(c) || isLower(c) }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isAlnum(c byte) bool { return isAlpha(c) || isDigit(c) }
func isGraph(c byte) bool { return '!' <= c && c <= '~' }

// namedClasses are those of POSIX, of ASCII alone.
var namedClasses = map[string]func(byte) bool{
	"alnum":  isAlnum,
	"alpha":  isAlpha,
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < ' ' || c == 127 },
	"digit":  isDigit,
	"graph":  isGraph,
	"lower":  isLower,
	"print":  func(c byte) bool { return c == ' ' || isGraph(c) },
	"punct":  func(c byte) bool { return isGraph(c) && !isAlnum(c) },
	"space":  func(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' },
	"upper":  isUpper,
	"xdigit": func(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' },
}

// shapeOf finds the cheapest way to match the tokens.
func shapeOf(tokens []token) glob {
	var literals [2][]byte
	stars := 0
	for _, t := range tokens {
		switch {
		case t.kind == tokenByte:
			literals[stars] = append(literals[stars], t.char)
		case t.kind == tokenStar && stars == 0:
			stars = 1
		default:
			return glob{shape: shapeTokens, tokens: tokens}
		}
	}
	g := glob{prefix: string(literals[0]), suffix: string(literals[1])}
	if stars == 1 {
		g.shape = shapeOneStar
	}
	return g
}

// match reports whether the whole name matches. A deep glob matches any.
func (g *glob) match(name string) bool {
	switch {
	case g.deep:
		return true
	case g.shape == shapeLiteral:
		return name == g.prefix
	case g.shape == shapeOneStar:
		return len(name) >= len(g.prefix)+len(g.suffix) &&
			strings.HasPrefix(name, g.prefix) && strings.HasSuffix(name, g.suffix)
	}
	return matchTokens(g.tokens, name)
}

// matchTokens goes back only to the last star, so that it costs at most the
// product of both lengths, whatever the pattern.
func matchTokens(tokens []token, name string) bool {
	t, n := 0, 0
	starToken, starName := -1, 0
	for {
		switch {
		case t < len(tokens) && tokens[t].kind == tokenStar:
			starToken, starName = t, n
			t++
			continue
		case t == len(tokens) && n == len(name):
			return true
		case t < len(tokens) && n < len(name) && tokens[t].match(name[n]):
			t++
			n++
			continue
		}
		if starToken < 0 || starName >= len(name) {
			return false
		}
		starName++
		t, n = starToken+1, starName
	}
}

func (t *token) match(c byte) bool {
	switch t.kind {
	case tokenByte:
		return c == t.char
	case tokenClass:
		return t.class.has(c)
	}
	return true
}

func lowerIf(c byte, fold bool) byte {
	if fold && isUpper(c) {
		return c - 'A' + 'a'
	}
	return c
}

// lower folds ASCII letters alone, as git does: names are bytes.
func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if isUpper(s[i]) {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lowerIf(b[i], true)
			}
			return string(b)
		}
	}
	return s
}
