package listing

import (
	"testing"

	"github.com/bk-backup/bk/format"
)

func TestMode(t *testing.T) {
	for mode, want := range map[uint32]string{
		0o644: "-rw-r--r--", 0o755: "-rwxr-xr-x", 0o4755: "-rwsr-xr-x", 0o4644: "-rwSr--r--", 0o2755: "-rwxr-sr-x",
		0o1777: "-rwxrwxrwt", 0o1666: "-rw-rw-rwT", 0: "----------",
	} {
		if got := Mode(&format.Entry{Type: format.TypeFile, Has: format.HasMode, Mode: mode}); got != want {
			t.Errorf("%#o: %s, want %s", mode, got, want)
		}
	}
}
