// Package prefetch makes a source of records whose content is fetched ahead of
// when it is asked for, by several goroutines and within bounds, while their
// order stays. It is what exports of repositories are made of, where chunks lie
// scattered over packs or segments:
//
//	produce -> Source.Add (a window of items and wants) -> Options.Fill -> Options.Record -> Next
//
// Start at Source; Runs says which wants of a window one read serves. What an
// item or a want is, where it lies and how it is opened is the system's own.
// Any package below format may import it; it imports format alone.
package prefetch
