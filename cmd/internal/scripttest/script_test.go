// Package scripttest runs the built programs as people do: scripts below
// testdata/script with real processes, real pipes and exit codes. Each script
// has a directory of its own; $BK_REPO lies in it and does not exist yet.
//
// Besides the commands of package testscript, scripts have the programs
//
//	exec pipe A ... | B ... | C ...    a pipeline; fails if any program fails, and says all exit codes
//	exec code N A ...                  succeeds if A exits with N
//	exec damage flip|cut data|meta REPO  damages the newest pack of that kind
//	exec serving FLAGS... -- A ...     runs A beside a bk-serve with these flags, by whose address
//	                                   SERVER in its arguments is replaced; with -tls first, by TLS
//
// Nothing imports it.
package scripttest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"pipe": pipe, "code": code, "damage": damage, "serving": serving})
}

func TestScripts(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin+"/", "github.com/bk-backup/bk/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "script"),
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("HOME", filepath.Join(env.WorkDir, ".userhome"))
			env.Setenv("BK_CACHE_DIR", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("BK_REPO", filepath.Join(env.WorkDir, "repo"))
			env.Setenv("BK_PASSPHRASE", "correct horse")
			env.Setenv("TZ", "UTC")
			return os.Mkdir(filepath.Join(env.WorkDir, ".userhome"), 0o700)
		},
	})
}
