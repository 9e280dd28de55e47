// Package killtest kills the programs with SIGKILL at random moments, alone, in
// pipes, and many at once on one repository, and checks that nothing which was
// committed is lost and that running the same again completes. It has tests
// alone: BK_KILLS sets how many kills; BK_STRESS_SECONDS how long TestStress
// goes on, and BK_STRESS_SEED with what seed.
package killtest
