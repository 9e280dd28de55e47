// Package pack puts sealed chunks into packs and takes them out again, and
// encodes what an index says of packs (spec/repository.md, sections 5 and 6).
//
// Start reading at [Writer], which fills one pack; [Opener] opens chunks of a
// pack of which an index, or the pack's own directory ([ReadDirectory]), told
// the place. [AppendIndex] and [ParseIndex] are the body of an index object.
// Looking chunks up is package repo/index's, deciding which pack a chunk goes
// into is repo's, and payloads are neither compressed nor decompressed here.
//
// Package repo and those below it that deal in packs (repo/index) import this
// package. It imports repo/seal, repo/store, and format for limits.
package pack
