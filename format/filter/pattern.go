package filter

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Rule is one line of an ordered list of patterns: drop what matches, or keep it.
type Rule struct {
	Pattern string
	Keep    bool
}

// Patterns is a compiled, ordered list of rules on paths. It is immutable and
// may be used by several goroutines.
//
// A pattern is written as in gitignore. Without a slash it matches the name at
// any depth. A slash at its beginning or inside anchors it to the root of the
// listing. A slash at its end makes it match directories only. "*" and "?" do
// not match a slash; "**" between slashes is any number of directories, at the
// end everything below; [a-z], [!a-z], [[:alpha:]] are sets of bytes; a
// backslash takes the next byte as it is. Matching is on bytes.
//
// The fate of a path is decided by the last rule that matches the path or any
// directory above it. What no rule matches is kept, unless the first rule is a
// keep: then it is dropped. The root is never dropped.
//
// So both kinds of rule reach downward, and this is where the list differs from
// gitignore: there only ignoring reaches downward, a "!" rule speaks for the
// path it matches alone, and nothing below an ignored directory can be brought
// back. Each single pattern matches the same as git's.
//
// A directory whose fate is to be dropped passes all the same if a keep rule
// could match something below it, so that what is kept there has its parents.
type Patterns struct {
	rules       []rule // rule number n, as counted below, is rules[n-1]
	ignoreCase  bool
	defaultDrop bool
	twoFates    bool // some path may have two fates, see fate

	// Rules that a look-up decides, by what they look up.
	names map[string]lastRule // the whole name, at any depth
	exts  map[string]lastRule // what follows the last dot of the name, at any depth
	paths map[string]lastRule // the whole path
	// The other rules by their number, last first.
	named, anchored []int

	lastNamedKeep int   // number of the last keep rule that may match at any depth
	anchoredKeeps []int // numbers of the other keep rules
}

type rule struct {
	Rule
	dirOnly    bool
	isAnchored bool
	globs      []glob // one if not anchored
}

// lastRule holds the number of the last rule that matches objects of any type,
// and of the last that matches directories. Rules count from 1; 0 is none.
type lastRule struct{ any, dir int }

// noRule is the number that stands for "no rule matched".
const noRule = 0

func (l *lastRule) add(other lastRule) {
	l.any, l.dir = max(l.any, other.any), max(l.dir, other.dir)
}

// asLast is what the rule of that number contributes where it matches.
func (r *rule) asLast(index int) lastRule {
	if r.dirOnly {
		return lastRule{dir: index}
	}
	return lastRule{any: index, dir: index}
}

// NewPatterns compiles the rules in the order in which they apply. The error
// names the pattern that means nothing.
func NewPatterns(rules []Rule, ignoreCase bool) (*Patterns, error) {
	p := &Patterns{
		ignoreCase:  ignoreCase,
		defaultDrop: len(rules) > 0 && rules[0].Keep,
		names:       map[string]lastRule{},
		exts:        map[string]lastRule{},
		paths:       map[string]lastRule{},
	}
	for _, r := range rules {
		compiled, err := parseRule(r, ignoreCase)
		if err != nil {
			return nil, fmt.Errorf("pattern %q %w", r.Pattern, err)
		}
		p.rules = append(p.rules, compiled)
		p.file(len(p.rules), &compiled)
	}
	return p, nil
}

// file puts a rule where matching will find it.
func (p *Patterns) file(index int, r *rule) {
	p.twoFates = p.twoFates || r.Keep || r.dirOnly
	if r.Keep && !r.isAnchored {
		p.lastNamedKeep = index
	} else if r.Keep {
		p.anchoredKeeps = append(p.anchoredKeeps, index)
	}
	if table, key := p.tableFor(r); table != nil {
		last := table[key]
		last.add(r.asLast(index))
		table[key] = last
		return
	}
	if r.isAnchored {
		p.anchored = append([]int{index}, p.anchored...)
	} else {
		p.named = append([]int{index}, p.named...)
	}
}

// tableFor returns the table that decides the rule by one look-up, nil if none
// does.
func (p *Patterns) tableFor(r *rule) (map[string]lastRule, string) {
	first := &r.globs[0]
	if !r.isAnchored {
		ext, isExt := strings.CutPrefix(first.suffix, ".")
		switch {
		case first.deep || first.shape == shapeTokens:
			return nil, ""
		case first.shape == shapeLiteral:
			return p.names, first.prefix
		case first.prefix == "" && isExt && !strings.Contains(ext, "."):
			return p.exts, ext
		}
		return nil, ""
	}
	var whole []string
	for i := range r.globs {
		if r.globs[i].deep || r.globs[i].shape != shapeLiteral {
			return nil, ""
		}
		whole = append(whole, r.globs[i].prefix)
	}
	return p.paths, strings.Join(whole, "/")
}

// parseRule compiles one pattern; its error continues "pattern X ...".
func parseRule(r Rule, ignoreCase bool) (rule, error) {
	text := r.Pattern
	out := rule{Rule: r}
	if strings.HasPrefix(text, "!") {
		return out, fmt.Errorf(`begins with "!": use a keep rule, or write "\!" for a name that begins so`)
	}
	if strings.IndexByte(text, 0) >= 0 {
		return out, fmt.Errorf("holds a zero byte, which no path does")
	}
	if trimmed, ok := strings.CutSuffix(text, "/"); ok {
		text, out.dirOnly = trimmed, true
	}
	out.isAnchored = strings.Contains(text, "/")
	text = strings.TrimPrefix(text, "/")
	if text == "" {
		return out, fmt.Errorf("matches nothing: it has no name in it")
	}
	for _, component := range splitPattern(text) {
		if component == "" || component == "." || component == ".." {
			return out, fmt.Errorf("matches nothing: no path has the component %q", component)
		}
		g, err := parseGlob(component, ignoreCase)
		if err != nil {
			return out, err
		}
		if g.deep && !out.isAnchored {
			g = glob{shape: shapeOneStar}
		}
		if n := len(out.globs); g.deep && n > 0 && out.globs[n-1].deep {
			continue
		}
		out.globs = append(out.globs, g)
	}
	// "a/**" is everything below a, but not a: one component at least.
	if n := len(out.globs); out.globs[n-1].deep {
		out.globs = append(out.globs[:n-1], glob{shape: shapeOneStar}, glob{deep: true})
	}
	return out, nil
}

// splitPattern cuts at slashes. A slash that is escaped or in brackets leaves a
// component that does not parse, so it is refused rather than never matched.
func splitPattern(text string) []string { return strings.Split(text, "/") }

// Empty reports whether there are no rules: nothing is dropped.
func (p *Patterns) Empty() bool { return p == nil || len(p.rules) == 0 }

// Rules returns the rules that the list was made of.
func (p *Patterns) Rules() []Rule {
	if p == nil {
		return nil
	}
	rules := make([]Rule, len(p.rules))
	for i := range p.rules {
		rules[i] = p.rules[i].Rule
	}
	return rules
}

// Match reports whether the object at path is dropped, and whether nothing at
// or below the path can pass, whatever its type. It fits
// format.ExportOptions.Drop: where the type is not known, isDir is false, and
// skipBelow tells whether the object could pass as a directory. A nil list
// drops nothing.
func (p *Patterns) Match(path string, isDir bool) (drop, skipBelow bool) {
	f := p.fate(path)
	return f.drop(isDir), f.file && f.dir
}

// Picks reports whether an object is kept because a rule matches it, and not
// only a directory above it: for programs that look for objects and do not want
// all that lies below them.
func (p *Patterns) Picks(path string, isDir bool) bool {
	if p.Empty() || path == "" {
		return false
	}
	if p.ignoreCase {
		path = lower(path)
	}
	nameAt := strings.LastIndexByte(path, '/') + 1
	last := p.lastMatch(path, nameAt, noRule)
	own := last.any
	if isDir {
		own = last.dir
	}
	if own == noRule || p.dropsBy(own) {
		return false
	}
	return nameAt == 0 || !p.dropsBy(max(own, p.lastOnWay(path[:nameAt-1])))
}

// Last returns the number, from 1, of the last rule that matches the object at
// path, which is no directory, or a directory above it; 0 if none does.
func (p *Patterns) Last(path string) int {
	if p.Empty() || path == "" {
		return noRule
	}
	if p.ignoreCase {
		path = lower(path)
	}
	slash := strings.LastIndexByte(path, '/')
	above := noRule
	if slash >= 0 {
		above = p.lastOnWay(path[:slash])
	}
	return p.lastMatch(path, slash+1, above).any
}

func (p *Patterns) fate(path string) fate {
	if p.Empty() || path == "" {
		return fate{}
	}
	if p.ignoreCase {
		path = lower(path)
	}
	slash := strings.LastIndexByte(path, '/')
	above := noRule
	if slash >= 0 {
		above = p.lastOnWay(path[:slash])
	}
	return p.fateOf(path, slash+1, above)
}

// fate says what becomes of a path, for the two ways in which types matter.
// Dir is set when a directory there, and all that could be below it, is dropped.
type fate struct{ file, dir bool }

func (f fate) drop(isDir bool) bool {
	if isDir {
		return f.dir
	}
	return f.file
}

// or is the fate by two lists, each of which may drop.
func (f fate) or(other fate) fate { return fate{f.file || other.file, f.dir || other.dir} }

// dependsOnType reports whether what passes at the path may be a directory or
// something else, but not both.
func (f fate) dependsOnType() bool { return f.file != f.dir }

// fateOf judges a path whose name begins at nameAt, given the last rule that
// matches a directory above it.
func (p *Patterns) fateOf(path string, nameAt, above int) fate {
	last := p.lastMatch(path, nameAt, above)
	return fate{
		file: p.dropsBy(last.any),
		dir:  p.dropsBy(last.dir) && !p.keepsBelow(path, last.dir),
	}
}

func (p *Patterns) dropsBy(index int) bool {
	if index == noRule {
		return p.defaultDrop
	}
	return !p.rules[index-1].Keep
}

// lastOnWay returns the last rule that matches dir or a directory above it.
func (p *Patterns) lastOnWay(dir string) int {
	last := noRule
	nameAt := 0
	for {
		end := strings.IndexByte(dir[nameAt:], '/')
		if end < 0 {
			return p.lastMatch(dir, nameAt, last).dir
		}
		last = p.lastMatch(dir[:nameAt+end], nameAt, last).dir
		nameAt += end + 1
	}
}

// lastMatch returns the last rules that match the path itself, in place of
// floor where they come after it.
func (p *Patterns) lastMatch(path string, nameAt, floor int) lastRule {
	last, name := lastRule{floor, floor}, path[nameAt:]
	if len(p.names) > 0 {
		last.add(p.names[name])
	}
	if len(p.exts) > 0 {
		if dot := strings.LastIndexByte(name, '.'); dot >= 0 {
			last.add(p.exts[name[dot+1:]])
		}
	}
	if len(p.paths) > 0 {
		last.add(p.paths[path])
	}
	for _, index := range p.named {
		if index <= last.any {
			break
		}
		if r := &p.rules[index-1]; r.globs[0].match(name) {
			last.add(r.asLast(index))
		}
	}
	for _, index := range p.anchored {
		if index <= last.any {
			break
		}
		if r := &p.rules[index-1]; r.matchPath(path) {
			last.add(r.asLast(index))
		}
	}
	return last
}

// matchPath matches an anchored rule component by component. As in
// matchTokens, only the last "**" is ever gone back to.
func (r *rule) matchPath(path string) bool {
	g, at := 0, 0 // at is len(path)+1 when no component is left
	deepGlob, deepAt := -1, 0
	for {
		if g < len(r.globs) && r.globs[g].deep {
			if g == len(r.globs)-1 {
				return true
			}
			deepGlob, deepAt = g, at
			g++
			continue
		}
		if at > len(path) {
			return g == len(r.globs)
		}
		end := componentEnd(path, at)
		if g < len(r.globs) && r.globs[g].match(path[at:end]) {
			g, at = g+1, end+1
			continue
		}
		if deepGlob < 0 {
			return false
		}
		deepAt = componentEnd(path, deepAt) + 1
		if deepAt > len(path) {
			return false
		}
		g, at = deepGlob+1, deepAt
	}
}

// componentEnd returns where the component of path that begins at at ends.
func componentEnd(path string, at int) int {
	if slash := strings.IndexByte(path[at:], '/'); slash >= 0 {
		return at + slash
	}
	return len(path)
}

// keepsBelow reports whether a keep rule after index could match something
// below the directory dir. It may say yes where later rules would drop all the
// same, never no where something passes.
func (p *Patterns) keepsBelow(dir string, index int) bool {
	if p.lastNamedKeep > index {
		return true
	}
	for _, keep := range p.anchoredKeeps {
		if keep > index && p.rules[keep-1].canMatchBelow(dir) {
			return true
		}
	}
	return false
}

// canMatchBelow reports whether an anchored rule could match a path below dir.
func (r *rule) canMatchBelow(dir string) bool {
	at := 0
	for i := range r.globs {
		if r.globs[i].deep || at > len(dir) {
			return true
		}
		end := componentEnd(dir, at)
		if !r.globs[i].match(dir[at:end]) {
			return false
		}
		at = end + 1
	}
	return false
}

// matcher judges paths that come more or less in order: it remembers what the
// directories above the last path matched. It is for one goroutine.
type matcher struct {
	patterns *Patterns
	dir      string // the directory that way leads to
	way      []wayPoint
}

// wayPoint is one directory of matcher.dir.
type wayPoint struct {
	end  int // dir[:end] is its path
	last int // the last rule that matches it or a directory above it
}

// fate judges one path as Patterns.Match does.
func (m *matcher) fate(path string) fate {
	p := m.patterns
	if p.Empty() || path == "" {
		return fate{}
	}
	if p.ignoreCase {
		path = lower(path)
	}
	slash := strings.LastIndexByte(path, '/')
	if slash < 0 {
		return p.fateOf(path, 0, noRule)
	}
	if dir := path[:slash]; dir != m.dir {
		m.walk(dir)
	}
	return p.fateOf(path, slash+1, m.way[len(m.way)-1].last)
}

// walk makes dir the remembered directory; it judges only the components in
// which dir differs from the one before.
func (m *matcher) walk(dir string) {
	for len(m.way) > 0 {
		end := m.way[len(m.way)-1].end
		if end <= len(dir) && dir[:end] == m.dir[:end] && (end == len(dir) || dir[end] == '/') {
			break
		}
		m.way = m.way[:len(m.way)-1]
	}
	last, nameAt := noRule, 0
	if n := len(m.way); n > 0 {
		last, nameAt = m.way[n-1].last, m.way[n-1].end+1
	}
	for nameAt <= len(dir) {
		end := componentEnd(dir, nameAt)
		last = m.patterns.lastMatch(dir[:end], nameAt, last).dir
		m.way = append(m.way, wayPoint{end, last})
		nameAt = end + 1
	}
	m.dir = dir
}

// patternLineSizeMax bounds one line of a file of patterns, in bytes.
const patternLineSizeMax = 64 << 10

// ReadRules reads a file in the syntax of gitignore: a pattern a line, blank
// lines and lines that begin with "#" mean nothing, "!" makes a keep rule,
// spaces at the end are ignored unless escaped by a backslash. Lines end in LF
// or CRLF. The name is for errors, which give the line too.
func ReadRules(r io.Reader, name string) ([]Rule, error) {
	var rules []Rule
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, patternLineSizeMax)
	number := 0
	for lines.Scan() {
		number++
		text := lines.Text()
		if number == 1 {
			text = strings.TrimPrefix(text, "\uFEFF")
		}
		text = trimSpaces(text)
		if text == "" || text[0] == '#' {
			continue
		}
		rest, keep := strings.CutPrefix(text, "!")
		rule := Rule{Pattern: rest, Keep: keep}
		if _, err := parseRule(rule, false); err != nil {
			return nil, fmt.Errorf("%s, line %d: pattern %q %w", name, number, rest, err)
		}
		rules = append(rules, rule)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read patterns from %s after line %d: %w", name, number, err)
	}
	return rules, nil
}

// trimSpaces cuts spaces at the end of a line but for the last escaped one.
func trimSpaces(line string) string {
	keep := 0
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\\' && i+1 < len(line):
			i++
			keep = i + 1
		case line[i] != ' ':
			keep = i + 1
		}
	}
	return line[:keep]
}
