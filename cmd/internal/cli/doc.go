// Package cli is what all programs of bk share at their outer edge: parsing
// flags, the environment, passphrases, progress, the wording of errors, exit
// codes, man pages and shell completion. It is the only place that touches
// standard streams, the environment and os.Exit.
//
// Start at Main. Only the programs under cmd may import it.
package cli
