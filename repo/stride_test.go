package repo

// underRace returns few under the race detector, and all otherwise.
func underRace[T any](all, few T) T {
	if raceEnabled {
		return few
	}
	return all
}
