// Package killtest kills the programs with SIGKILL at random moments, alone and
// in pipes, and checks that nothing which was committed is lost and that running
// the same again completes. It has tests alone: BK_KILLS sets how many kills. TestStress lets
// programs of all kinds work at once: BK_STRESS_SECONDS and BK_STRESS_SEED.
package killtest
