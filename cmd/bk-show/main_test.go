package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bk-backup/bk/format/vectortest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bk-show": main})
}

func TestScripts(t *testing.T) {
	vectors, err := vectortest.Load(filepath.Join("..", "..", "spec", "vectors", "stream"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			for _, v := range vectors {
				if err := os.WriteFile(env.Getenv("WORK")+"/"+v.Name, v.Stream(), 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	})
}
