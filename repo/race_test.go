//go:build race

package repo

// raceEnabled says that everything takes ten times as long: the tests that go
// through many cases then take larger strides.
const raceEnabled = true
