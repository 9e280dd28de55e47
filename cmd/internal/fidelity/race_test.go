//go:build race

package fidelity_test

// raceEnabled says that tests run many times slower.
const raceEnabled = true
