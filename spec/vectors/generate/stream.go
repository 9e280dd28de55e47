package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"

	"github.com/bk-backup/bk/format/vectortest"
)

// stream gathers the records of a vector and keeps counts and digests, so that
// a case says only what it is about.
type stream struct {
	chunks  []vectortest.Chunk
	records int

	snapSum, endSum                                   hash.Hash
	inside                                            bool // in a snapshot
	snapshots, entries, removes, dataRecords, byteSum uint64
	content                                           uint64
}

func newStream() *stream {
	return &stream{snapSum: sha256.New(), endSum: sha256.New()}
}

// add appends bytes as they are, with a remark. Long runs of the same few bytes
// are written once.
func (s *stream) add(remark string, b []byte) {
	for {
		at, period, times := findRun(b)
		s.chunks = append(s.chunks, vectortest.Chunk{Remark: remark, Bytes: b[:at:at], Times: 1})
		if times == 0 {
			return
		}
		s.chunks = append(s.chunks, vectortest.Chunk{Bytes: b[at : at+period : at+period], Times: times})
		remark, b = "", b[at+period*times:]
		if len(b) == 0 {
			return
		}
	}
}

// findRun returns the first run of at least 512 bytes that repeat with a period
// of at most 64, or the whole length.
func findRun(b []byte) (at, period, times int) {
	for at = 0; at+512 <= len(b); at++ {
		for period = 1; period <= 64; period++ {
			n := period
			for at+n < len(b) && b[at+n] == b[at+n-period] {
				n++
			}
			if n >= 512 {
				return at, period, n / period
			}
		}
	}
	return len(b), 0, 0
}

// record appends a record; body is a map in any of the forms that enc takes.
func (s *stream) record(kind string, body any) {
	s.wire(kind, append(append([]byte{0x92}, enc(kind)...), enc(body)...))
}

// wire appends a record that is encoded already and digests it.
func (s *stream) wire(kind string, b []byte) {
	s.add(fmt.Sprintf("%d %s", s.records, kind), b)
	s.digest(kind, b)
}

func (s *stream) digest(kind string, b []byte) {
	s.records++
	switch {
	case kind == "snapshot":
		s.snapSum.Reset()
		s.inside = true
		s.entries, s.removes, s.dataRecords, s.byteSum = 0, 0, 0, 0
	case kind == "entry":
		s.entries++
		s.content = 0
	case kind == "remove":
		s.removes++
	case kind == "data":
		s.dataRecords++
	}
	if kind == "commit" {
		s.inside = false
		s.snapshots++
	}
	if s.inside {
		s.snapSum.Write(b)
	} else {
		s.endSum.Write(b)
	}
}

// header appends a header with features.
func (s *stream) header(features ...any) {
	body := dict{{"version", 1}}
	if len(features) > 0 {
		body = append(body, kv{"features", list(features)})
	}
	s.record("bk", body)
}

// id returns 32 bytes that all are n.
func id(n byte) bin { return bin(bytes.Repeat([]byte{n}, 32)) }

func sha(b string) bin {
	sum := sha256.Sum256([]byte(b))
	return bin(sum[:])
}

func (s *stream) snapshot(n byte, more ...kv) {
	s.record("snapshot", append(dict{{"id", id(n)}}, more...))
}

// child appends a snapshot that has the one before as its parent.
func (s *stream) child(n, parent byte, more ...kv) {
	s.snapshot(n, append([]kv{{"parent", id(parent)}}, more...)...)
}

func (s *stream) entry(path, kind string, more ...kv) {
	s.record("entry", append(dict{{"path", bin(path)}, {"type", kind}}, more...))
}

func (s *stream) dir(path string)              { s.entry(path, "dir") }
func (s *stream) file(path string, more ...kv) { s.entry(path, "file", more...) }
func (s *stream) emptyFile(path string)        { s.file(path); s.eof() }
func (s *stream) whole(path, content string)   { s.file(path); s.data(content); s.eof() }
func (s *stream) remove(path string, more ...kv) {
	s.record("remove", append(dict{{"path", bin(path)}}, more...))
}
func (s *stream) hole(size uint64) { s.record("hole", dict{{"size", size}}); s.content += size }
func (s *stream) refs(contents ...string) {
	var chunks list
	for _, c := range contents {
		chunks = append(chunks, list{sha(c), len(c)})
		s.content += uint64(len(c))
	}
	s.record("refs", dict{{"chunks", chunks}})
}

// data appends a chunk that is not encoded.
func (s *stream) data(plain string, more ...kv) {
	s.payload(append(dict{{"id", sha(plain)}, {"size", len(plain)}}, more...), []byte(plain))
	s.content += uint64(len(plain))
}

// zstd appends a chunk with a payload that is a frame.
func (s *stream) zstd(plain string, frame []byte) {
	s.payload(dict{{"codec", "zstd"}, {"id", sha(plain)}, {"size", len(plain)}}, frame)
	s.content += uint64(len(plain))
}

// payload appends a data record; the digest ends where the payload begins.
func (s *stream) payload(body any, payload []byte) {
	s.wire("data", append(append([]byte{0x93}, enc("data")...), enc(body)...))
	s.add("  its payload", enc(bin(payload)))
}

func (s *stream) copyRange(offset, size uint64, more ...kv) {
	s.record("copy", append(dict{{"offset", offset}, {"size", size}}, more...))
	s.content += size
}

func (s *stream) eof(more ...kv) {
	s.byteSum += s.content
	s.record("eof", append(dict{{"size", s.content}}, more...))
}

func (d dict) clone() dict { return append(dict{}, d...) }

// set puts other values into a body.
func (d dict) set(more ...kv) dict {
	for _, m := range more {
		found := false
		for i := range d {
			if d[i].key == m.key {
				d[i].value, found = m.value, true
			}
		}
		if !found {
			d = append(d, m)
		}
	}
	return d
}

// commit appends a commit that is right but for what more says.
func (s *stream) commit(more ...kv) {
	body := dict{
		{"bytes", s.byteSum}, {"data", s.dataRecords}, {"digest", bin(s.snapSum.Sum(nil))},
		{"entries", s.entries}, {"removes", s.removes},
	}
	s.record("commit", body.set(more...))
}

// end appends an end that is right but for what more says.
func (s *stream) end(more ...kv) {
	s.record("end", dict{{"digest", bin(s.endSum.Sum(nil))}, {"snapshots", s.snapshots}}.set(more...))
}

// finish appends a commit and the end.
func (s *stream) finish() { s.commit(); s.end() }

// cut takes n bytes off the end.
func (s *stream) cut(n int) {
	last := &s.chunks[len(s.chunks)-1]
	last.Bytes = last.Bytes[:len(last.Bytes)-n]
	last.Remark += ", cut off"
}

// flip changes one bit of the chunk that has the remark, at a byte counted from
// its end.
func (s *stream) flip(remark string, fromEnd int) {
	for i := range s.chunks {
		if c := &s.chunks[i]; c.Remark == remark {
			c.Bytes[len(c.Bytes)-1-fromEnd] ^= 1
			c.Remark += ", one bit flipped"
			return
		}
	}
	panic("there is no chunk " + remark)
}
