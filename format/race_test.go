//go:build race

package format

// raceEnabled says that pools drop buffers at random, as they do under the race
// detector.
const raceEnabled = true
