// Package retention says which snapshots of a series a policy keeps: so many
// hourly, daily, weekly ones. It is a pure function over times and tags; it
// reads and deletes nothing.
//
// Start at Policy.Apply. It imports nothing of this module; programs and package
// repo may import it.
package retention
