package cli

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// deriveMemory is what deriving a key from a passphrase takes: Argon2id as
// bk-init and bk-key set it. restic's scrypt takes half of it.
const deriveMemory = 64 << 20

var askedForHugePages sync.Once

// easeDerivation has the derivation of a key that follows find its memory in huge
// pages: it goes through all of it at random, and with small pages most of its
// time would go into faults and lookups of addresses. The kernel is asked by
// address, and the libraries allocate for themselves. So a buffer of that size is
// allocated, untouched, and dropped again, for the library to get the same
// addresses. Should it get others, nothing is lost but time.
func easeDerivation() {
	askedForHugePages.Do(func() {
		memory := make([]byte, deriveMemory)
		_ = unix.Madvise(memory, unix.MADV_HUGEPAGE)
		runtime.KeepAlive(memory)
	})
	runtime.GC() // what was dropped, here or by an earlier derivation, is free then
}
