// Package spill keeps what may outgrow memory: a Table from hashes to numbers, a
// Log of bytes, and a Sorter of rows. All begin in memory and go on in temporary
// files that have no name, so that nothing is left behind whatever happens.
//
// It is for the systems below format whose metadata comes in an order that they
// cannot choose. Any package below format may import it; it imports nothing of
// this module. What they write to files is not encrypted.
package spill
