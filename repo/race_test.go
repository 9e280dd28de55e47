//go:build race

package repo

// raceEnabled says that everything takes about five times as long. Tests that go
// through many cases then take fewer of them: the detector looks at how
// goroutines meet, which is the same in each.
const raceEnabled = true
