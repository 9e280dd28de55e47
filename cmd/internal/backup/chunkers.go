package backup

import "github.com/bk-backup/bk/format/chunker"

// streamChunker cuts what is written to standard output without a repository.
const streamChunker = "gear:64KiB"

// publicSplitters cut in a way that anybody can repeat.
func publicSplitters(spec chunker.Spec) (*chunker.Factory, error) {
	return chunker.New(spec, chunker.Public())
}
