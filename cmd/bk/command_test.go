package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFamilyIsWhole compares the list with the programs of the tree.
func TestFamilyIsWhole(t *testing.T) {
	listed := map[string]bool{}
	for _, o := range order {
		listed[o.name] = o.text != ""
	}
	dirs, err := filepath.Glob("../bk-*")
	if err != nil || len(dirs) == 0 {
		t.Fatal(dirs, err)
	}
	for _, dir := range dirs {
		if name := strings.TrimPrefix(filepath.Base(dir), "bk-"); !listed[name] {
			t.Errorf("bk does not say what bk-%s does", name)
		}
	}
	for _, o := range order {
		if _, err := os.Stat("../bk-" + o.name); err != nil {
			t.Errorf("bk lists bk-%s: %v", o.name, err)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"backup", "check", "find", "gc", "key", "ls", "restore"}
	for typed, want := range map[string]string{"bakup": "backup", "chekc": "check", "gf": "gc", "resotre": "restore", "frobnicate": "", "": "", "kee": "key"} {
		if got := nearest(typed, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", typed, got, want)
		}
	}
}
