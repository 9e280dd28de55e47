// Package formattest has what tests of systems have in common: receivers that
// apply a stream with all checks and keep the listings, and manifests, which
// say what a tree held that a real program backed up. Start at Receive, Export,
// EveryWay and ParseManifest. Only tests import it; it imports format alone.
package formattest
