package filter

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustPatterns(t testing.TB, ignoreCase bool, rules ...Rule) *Patterns {
	t.Helper()
	p, err := NewPatterns(rules, ignoreCase)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rulesOf reads "-x" as drop x and "+x" as keep x.
func rulesOf(texts ...string) []Rule {
	var rules []Rule
	for _, text := range texts {
		rules = append(rules, Rule{Pattern: text[1:], Keep: text[0] == '+'})
	}
	return rules
}

func TestPatternsMatch(t *testing.T) {
	for _, tc := range []struct {
		rules string
		path  string // a slash at the end: a directory
		drop  bool
		below bool // nothing at or below can pass, whatever its type
	}{
		{"-*.jpg", "a/b/cat.jpg", true, true},
		{"-*.jpg", "a/b/cat.jpeg", false, false},
		{"-*.jpg", "a/cat.jpg/x", true, true},
		{"-*.jpg", "", false, false},
		{"-/a", "a/", true, true},
		{"-/a", "b/a", false, false},
		{"-a/b", "a/b/c", true, true},
		{"-a/b", "x/a/b", false, false},
		{"-**/a/b", "x/a/b", true, true},
		{"-a/", "x/a", false, false},
		{"-a/", "x/a/", true, false},
		{"-a/", "x/a/y", true, true},
		{"-a/**", "a/", false, false},
		{"-a/**", "a/b/c", true, true},
		{"-a/**/b", "a/b", true, true},
		{"-a/**/b", "a/x/y/b", true, true},
		{"-a/**/b", "a/x/y/bc", false, false},
		{"-a/* +a/b", "a/c", true, true},
		{"-a/* +a/b", "a/b/c", false, false},
		{"-a +a/b/c", "a/", false, false},
		{"-a +a/b/c", "a/b/", false, false},
		{"-a +a/b/c", "a/b", true, false},
		{"-a +a/b/c", "a/x/", true, true},
		{"-a +a/b/c", "a/b/c/d", false, false},
		{"-a +a/b/c -c/d", "a/b/c/d", false, false},
		{"-a +a/b/c -**/c/d", "a/b/c/d", true, true},
		{"+*.jpg", "a/b/", false, false},
		{"+*.jpg", "a/b", true, false},
		{"+*.jpg", "a/b.jpg", false, false},
		{"+/home/jo", "etc/", true, true},
		{"+/home/jo", "home/", false, false},
		{"+/home/jo", "home/jo/x", false, false},
		{"+/home/jo", "home/al/", true, true},
		{"+/home/*/doc", "home/al/", false, false},
		{"+/home/*/doc", "home/al/x/", true, true},
		{"+/home/**", "home/", false, false},
		{"-*.jpg +/photos", "photos/a.jpg", false, false},
		{"+/photos -*.jpg", "photos/a.jpg", true, true},
		{"-[a-c]x", "bx", true, true},
		{"-[!a-c]x", "bx", false, false},
		{"-[^a-c]x", "dx", true, true},
		{"-[]]x", "]x", true, true},
		{"-[a-]x", "-x", true, true},
		{"-[[:digit:]]", "7", true, true},
		{`-\*`, "*", true, true},
		{`-\*`, "a", false, false},
		{`-\!a`, "!a", true, true},
		{"-a?c", "abc", true, true},
		{"-a?c", "a/c", false, false},
		{"-a*c*e", "abcde", true, true},
		{"-a*c*e", "abcdef", false, false},
		{"-**", "x", true, true},
		{"-foo**", "a/foobar", true, true},
		{"-\xff*", "a/\xff\xfe", true, true},
	} {
		t.Run(tc.rules+" "+tc.path, func(t *testing.T) {
			p := mustPatterns(t, false, rulesOf(strings.Fields(tc.rules)...)...)
			path, isDir := strings.CutSuffix(tc.path, "/")
			drop, below := p.Match(path, isDir)
			if drop != tc.drop || below != tc.below {
				t.Errorf("got drop %v, skipBelow %v, want %v, %v", drop, below, tc.drop, tc.below)
			}
		})
	}
}

func TestPatternsIgnoreCase(t *testing.T) {
	p := mustPatterns(t, true, rulesOf("-*.JPG", "-/Home/[A-C]x", "-Straße")...)
	for path, want := range map[string]bool{
		"a/CAT.jpG": true, "HOME/bX": true, "home/dx": false, "STRAße": true, "STRASSE": false,
	} {
		if got, _ := p.Match(path, false); got != want {
			t.Errorf("%q: dropped %v, want %v", path, got, want)
		}
	}
}

func TestNewPatternsRefuses(t *testing.T) {
	for pattern, want := range map[string]string{
		"":        "no name",
		"/":       "no name",
		"a//b":    "component",
		"a/../b":  "component",
		"./a":     "component",
		"a[b":     "without its ]",
		"a[b/c]":  "without its ]",
		"[[:x:]]": "does not exist",
		`a\`:      "backslash",
		`a\/b`:    "backslash",
		"!a":      "keep rule",
		"a\x00":   "zero byte",
	} {
		_, err := NewPatterns([]Rule{{Pattern: pattern}}, false)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("pattern %q: error %v, want one with %q", pattern, err, want)
		}
	}
}

func TestReadRules(t *testing.T) {
	text := "\uFEFF# comment\n\n*.jpg  \n!keep.jpg\r\n\\#x\n\\!y\nspace\\ \nin side\\  \n  \nd/\n"
	got, err := ReadRules(strings.NewReader(text), "f")
	if err != nil {
		t.Fatal(err)
	}
	want := []Rule{{Pattern: "*.jpg"}, {Pattern: "keep.jpg", Keep: true}, {Pattern: `\#x`},
		{Pattern: `\!y`}, {Pattern: `space\ `}, {Pattern: `in side\ `}, {Pattern: "d/"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err = ReadRules(strings.NewReader("a\n[b\n"), "list")
	if want := `list, line 2: pattern "[b" has a [ without its ]`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// tree is a directory of real objects that git judges, with their paths.
type tree struct {
	dir   string
	paths []string
	isDir map[string]bool
}

var treeNames = []string{"a", "b", "ab", "a.c", "b.c", "B", "x y", "!n", "#n", "a[b", "é", "-", "c.tar.gz", "*"}

func makeTree(t *testing.T, rnd *rand.Rand) *tree {
	tr := &tree{dir: t.TempDir(), isDir: map[string]bool{}}
	var fill func(dir string, depth int)
	fill = func(dir string, depth int) {
		for _, i := range rnd.Perm(len(treeNames))[:4+rnd.IntN(5)] {
			path := dir + treeNames[i]
			full := filepath.Join(tr.dir, path)
			tr.paths = append(tr.paths, path)
			if depth < 3 && rnd.IntN(2) == 0 {
				tr.isDir[path] = true
				if err := os.Mkdir(full, 0o755); err != nil {
					t.Fatal(err)
				}
				fill(path+"/", depth+1)
			} else if err := os.WriteFile(full, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill("", 0)
	return tr
}

// gitMatches asks git which paths a single pattern takes.
func (tr *tree) gitMatches(t *testing.T, repository, pattern string, ignoreCase bool) map[string]bool {
	exclude := filepath.Join(repository, "info", "exclude")
	if err := os.WriteFile(exclude, []byte(pattern+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "--git-dir", repository, "--work-tree", tr.dir,
		"-c", fmt.Sprintf("core.ignorecase=%v", ignoreCase), "-c", "core.excludesFile=",
		"check-ignore", "--no-index", "-z", "--stdin")
	cmd.Dir = tr.dir
	cmd.Stdin = strings.NewReader(strings.Join(tr.paths, "\x00") + "\x00")
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != 1 { // 1: none is ignored
		t.Fatalf("%v: %v", cmd, err)
	}
	matched := map[string]bool{}
	for _, path := range bytes.Split(out, []byte{0}) {
		matched[string(path)] = true
	}
	return matched
}

var patternPieces = []string{"a", "b", "ab", ".c", "*", "*", "?", "**", "/", "/", "[ab]", "[!a]", "[^b-]",
	"[[:alpha:]]", `\*`, `\a`, "x y", "B", "é", "tar", ".", "c", "-", "[]-]", "#n", "!n"}

// randomPattern makes a pattern that is likely to match something.
func randomPattern(rnd *rand.Rand) string {
	var b strings.Builder
	for range 1 + rnd.IntN(5) {
		b.WriteString(patternPieces[rnd.IntN(len(patternPieces))])
	}
	if rnd.IntN(4) == 0 {
		b.WriteString("/")
	}
	text := b.String()
	if text[0] == '!' || text[0] == '#' {
		text = `\` + text
	}
	return text
}

// TestPatternsAgainstGit lets git judge single patterns, and computes from that
// what a list must do: the last pattern that takes a path decides.
func TestPatternsAgainstGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is the oracle and is not installed")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	repository := filepath.Join(t.TempDir(), "r.git")
	if out, err := exec.Command("git", "init", "-q", "--bare", repository).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(repository, "info"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr := makeTree(t, rnd)
	checks, hits := 0, 0
	for range 120 {
		ignoreCase := rnd.IntN(4) == 0
		var rules []Rule
		var taken []map[string]bool
		for range 1 + rnd.IntN(6) {
			rule := Rule{Pattern: randomPattern(rnd), Keep: rnd.IntN(3) == 0}
			single, err := NewPatterns([]Rule{{Pattern: rule.Pattern}}, ignoreCase)
			if err != nil {
				continue
			}
			byGit := tr.gitMatches(t, repository, rule.Pattern, ignoreCase)
			for _, path := range tr.paths {
				checks++
				if byGit[path] {
					hits++
				}
				if got, _ := single.Match(path, tr.isDir[path]); got != byGit[path] {
					t.Fatalf("pattern %q, path %q, directory %v, ignoring case %v: we say %v, git says %v",
						rule.Pattern, path, tr.isDir[path], ignoreCase, got, byGit[path])
				}
			}
			rules, taken = append(rules, rule), append(taken, byGit)
		}
		checks += tr.checkList(t, rules, taken, ignoreCase)
	}
	t.Logf("%d checks on %d paths, %d taken by single patterns", checks, len(tr.paths), hits)
	if checks < 20_000 || hits < checks/50 {
		t.Errorf("only %d checks with %d hits: the test shows too little", checks, hits)
	}
}

// checkList checks a list of rules against what git says of each of them.
func (tr *tree) checkList(t *testing.T, rules []Rule, taken []map[string]bool, ignoreCase bool) int {
	list := mustPatterns(t, ignoreCase, rules...)
	walking := matcher{patterns: list}
	dropped := func(path string) bool {
		drop := len(rules) > 0 && rules[0].Keep
		for i, rule := range rules {
			if taken[i][path] {
				drop = !rule.Keep
			}
		}
		return drop
	}
	for _, path := range tr.paths {
		isDir := tr.isDir[path]
		drop, below := list.Match(path, isDir)
		if f := walking.fate(path); f.drop(isDir) != drop || (f.file && f.dir) != below {
			t.Fatalf("rules %v, path %q: matcher says %v, Match says %v, %v", rules, path, f, drop, below)
		}
		if want := dropped(path); drop != want && !(isDir && want) {
			t.Fatalf("rules %v, path %q: dropped %v, want %v", rules, path, drop, want)
		}
		if !below {
			continue
		}
		for _, other := range tr.paths {
			if strings.HasPrefix(other, path+"/") && !dropped(other) {
				t.Fatalf("rules %v: nothing below %q should pass, but %q does", rules, path, other)
			}
		}
	}
	return len(tr.paths)
}

// FuzzPatterns looks for lists on which the two ways to judge a path disagree,
// or which say that nothing passes below a directory where something does.
func FuzzPatterns(f *testing.F) {
	f.Add("*.jpg\n!/a\nb/**/c", "a/b/c.jpg", "x/y", false)
	f.Add("!/home/[a-z]*/doc\n*~\ndoc/", "home/jo", "doc/x~", true)
	f.Add("**\n!**/a/**\n\\!b", "b/a", "!b", false)
	f.Fuzz(func(t *testing.T, list, dir, rest string, ignoreCase bool) {
		rules, err := ReadRules(strings.NewReader(list), "list")
		if err != nil {
			return
		}
		p, err := NewPatterns(rules, ignoreCase)
		if err != nil {
			t.Fatalf("a list that ReadRules took: %v", err)
		}
		if !usable(dir) || !usable(rest) {
			return
		}
		m := matcher{patterns: p}
		for _, path := range []string{dir, dir + "/" + rest, rest, dir + "/" + rest} {
			for _, isDir := range []bool{false, true} {
				drop, below := p.Match(path, isDir)
				if fate := m.fate(path); fate.drop(isDir) != drop || (fate.file && fate.dir) != below {
					t.Fatalf("path %q: matcher says %v, Match says %v, %v", path, fate, drop, below)
				}
			}
		}
		if drop, _ := p.Match(dir, true); drop {
			if drop, below := p.Match(dir+"/"+rest, false); !drop || !below {
				t.Fatalf("%q is dropped as a directory, but %q below it passes", dir, rest)
			}
		}
	})
}

// usable reports whether a path could be in a stream.
func usable(path string) bool {
	for _, c := range strings.Split(path, "/") {
		if c == "" || c == "." || c == ".." {
			return false
		}
	}
	return strings.IndexByte(path, 0) < 0
}

func BenchmarkPatterns(b *testing.B) {
	var paths []string
	for d := range 300 {
		for f := range 100 {
			paths = append(paths, fmt.Sprintf("home/user%d/projects/module%d/internal/file%03d.%s",
				d%7, d, f, []string{"go", "jpg", "txt", "o"}[f%4]))
		}
	}
	for _, bc := range []struct {
		name  string
		rules []Rule
	}{
		{"one", rulesOf("-*.jpg")},
		{"ten", rulesOf("-*.jpg", "-*.o", "-node_modules/", "-.cache", "-/proc", "-/sys", "-*~", "-/home/*/tmp", "-**/build/out", "+/home/user1/keep")},
	} {
		p := mustPatterns(b, false, bc.rules...)
		b.Run(bc.name+"/in-order", func(b *testing.B) {
			m := matcher{patterns: p}
			for i := range b.N {
				m.fate(paths[i%len(paths)])
			}
		})
		b.Run(bc.name+"/any-order", func(b *testing.B) {
			for i := range b.N {
				p.Match(paths[i%len(paths)], false)
			}
		})
	}
}

func TestPicks(t *testing.T) {
	keep := func(patterns ...string) (rules []Rule) {
		for _, text := range patterns {
			rest, drop := strings.CutPrefix(text, "!")
			rules = append(rules, Rule{Pattern: rest, Keep: !drop})
		}
		return rules
	}
	for _, c := range []struct {
		rules []Rule
		path  string
		isDir bool
		want  bool
	}{
		{keep("a"), "a", false, true},
		{keep("a"), "x/a", true, true},
		{keep("a"), "a/b", false, false}, // kept, but not what was looked for
		{keep("a"), "A", false, false},
		{keep("a/"), "a", false, false},
		{keep("a/"), "a", true, true},
		{keep("/a/*.o"), "a/x.o", false, true},
		{keep("/a/*.o"), "b/a/x.o", false, false},
		{keep("*.o", "!build"), "build/x.o", false, false},
		{keep("*.o", "!build"), "build", true, false},
		{keep("*.o", "!build"), "src/x.o", false, true},
		{keep("!build", "*.o"), "build/x.o", false, true},
		{keep("!a"), "b", false, false},
		{keep("*"), "", true, false},
		{nil, "a", false, false},
	} {
		p, err := NewPatterns(c.rules, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Picks(c.path, c.isDir); got != c.want {
			t.Errorf("%v, %q, dir %t: %t", c.rules, c.path, c.isDir, got)
		}
		if drop, _ := p.Match(c.path, c.isDir); c.want && drop {
			t.Errorf("%v, %q, dir %t is picked and dropped", c.rules, c.path, c.isDir)
		}
	}
	p, err := NewPatterns(keep("a"), true)
	if err != nil || !p.Picks("x/A", false) {
		t.Error("case counts", err)
	}
}
