// Package repo is a bk repository: snapshots, and the chunks they are made of,
// sealed on storage. It is a source and a sink of the stream:
//
//	Repository.Export -> format.Source      (bk-export, bk-restore, bk-ls ...)
//	Repository.Import -> format.Sink        (bk-import, bk-backup)
//
// Start reading at Repository (repo.go), then Sink (sink.go) and source.go. What
// lies on storage is spec/repository.md. The parts are packages of their own:
// repo/store keeps objects, repo/seal seals them, repo/keyring has the keys,
// repo/pack puts chunks into packs, repo/index finds them, repo/tree is the
// listing of a snapshot.
//
// Programs and third parties may import it; no package below format does.
package repo
