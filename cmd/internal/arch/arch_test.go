// Package arch holds rules about the tree itself, as tests: which package may
// import which, that every package says what it is for, and that files stay
// small enough to read. Nothing imports it.
package arch

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const module = "github.com/bk-backup/bk"

type pkg struct {
	ImportPath  string
	Dir         string
	Doc         string
	Imports     []string
	GoFiles     []string
	TestGoFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 5 {
		t.Fatalf("go list found only %d packages", len(list))
	}
	return list
}

// allowed says whether the package at path from may import the one at path to,
// both relative to the module.
func allowed(from, to string) bool {
	in := func(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
	switch {
	case from == "format":
		return false // nothing of ours
	case in(from, "format"):
		return in(to, "format") || in(to, "repo/store")
	case in(from, "repo/store"):
		return in(to, "repo/store")
	case in(from, "repo") && from != "repo":
		return to != "repo" && !in(to, "cmd") && (to == "format" || to == "format/formattest" || in(to, "repo"))
	case from == "repo":
		return !in(to, "cmd") && (to == "format" || to == "format/chunker" || in(to, "repo"))
	}
	return true
}

func TestImportDirections(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module+"/")
			if ours && !allowed(from, to) {
				t.Errorf("%s imports %s, against the directions in spec/glossary.md", from, to)
			}
		}
	}
	if allowed("format", "format/filter") || allowed("format/disk", "repo") || allowed("repo/pack", "repo") {
		t.Error("the rule allows what it exists to refuse")
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// linesMax is the length of a source file beyond which it should be divided.
const linesMax = 620

func TestFileSizes(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte("\n")); n > linesMax {
				t.Errorf("%s/%s has %d lines; files are about one noun and at most %d", p.ImportPath, name, n, linesMax)
			}
		}
	}
}

// mainLinesMax bounds the mains: flags, then one call.
const mainLinesMax = 100

func TestMainsAreShort(t *testing.T) {
	for _, p := range packages(t) {
		if !strings.HasPrefix(p.ImportPath, module+"/cmd/bk") {
			continue
		}
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly)
			if err != nil || f.Name.Name != "main" {
				t.Errorf("%s/%s: package %v, error %v; programs are package main", p.ImportPath, name, f.Name, err)
			}
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if n := bytes.Count(b, []byte("\n")); name == "main.go" && n > mainLinesMax {
				t.Errorf("%s/%s has %d lines; a program is at most %d, its work belongs into a library", p.ImportPath, name, n, mainLinesMax)
			}
		}
	}
}
