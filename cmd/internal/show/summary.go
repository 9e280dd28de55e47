package show

import (
	"bufio"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
)

// summarySink counts. It writes a line when a snapshot is complete and the rest
// at the end. It remembers 8 bytes of a keyed hash for each chunk, so that one
// that is sent twice is unique once.
type summarySink struct {
	out  *bufio.Writer
	loc  *time.Location
	seed maphash.Seed
	seen map[uint64]struct{}

	verified bool // a Verifier stands before this sink

	snapshot   string
	files      uint64 // of the open snapshot
	filesTotal uint64
	entries    uint64
	removes    uint64
	bytes      uint64
	unique     uint64
	chunks     uint64
	sent       uint64 // plain bytes of the chunks, as often as they came
	payload    uint64 // bytes on the wire of the chunks
	refs       uint64
	copied     uint64
	held       bool // refs may name what only the receiver has
	holes      uint64
	losses     uint64
}

func newSummarySink(out *bufio.Writer, opts *Options) *summarySink {
	return &summarySink{out: out, loc: opts.Location, verified: opts.Verify, seed: maphash.MakeSeed(), seen: make(map[uint64]struct{})}
}

func (s *summarySink) Write(rec format.Record) error {
	switch r := rec.(type) {
	case *format.Header:
		return s.header(r)
	case *format.Snapshot:
		s.snapshot, s.files = snapshotLine(r, s.loc), 0
	case *format.Entry:
		if r.Type == format.TypeFile {
			s.files++
			s.filesTotal++
		}
	case *format.Data:
		s.data(r)
	case *format.Refs:
		for i := range r.Chunks {
			s.refs += uint64(r.Chunks[i].Size)
		}
	case *format.CopyRange:
		s.copied += r.Size
	case *format.Hole:
		s.holes += r.Size
	case *format.Commit:
		return s.commit(r)
	case *format.End:
		return s.end(r)
	}
	return nil
}

func (s *summarySink) header(h *format.Header) error {
	line := fmt.Sprintf("stream version %d", h.Version)
	if h.Producer != "" {
		line += " by " + cli.Printable(h.Producer)
	}
	if h.Created != nil {
		line += " at " + showTime(*h.Created, s.loc)
	}
	s.held = slices.Contains(h.Features, format.FeatureHeld)
	if len(h.Features) > 0 {
		line += " with"
		for _, f := range h.Features {
			line += " " + string(f)
		}
	}
	_, err := fmt.Fprintln(s.out, line)
	return err
}

func (s *summarySink) data(d *format.Data) {
	key := maphash.Comparable(s.seed, d.ID)
	s.sent += uint64(d.Size)
	s.payload += uint64(len(d.Payload))
	if _, again := s.seen[key]; !again {
		s.seen[key] = struct{}{}
		s.chunks++
		s.unique += uint64(d.Size)
	}
}

func (s *summarySink) commit(m *format.Commit) error {
	s.entries += m.Entries
	s.removes += m.Removes
	s.bytes += m.Bytes
	var lost strings.Builder
	for i := range m.Losses {
		s.losses += m.Losses[i].Count
		fmt.Fprintf(&lost, ", lost %s: %d", cli.Printable(m.Losses[i].Kind), m.Losses[i].Count)
	}
	_, err := fmt.Fprintf(s.out, "snapshot %s: %d entries, %d files, %d removes, %s%s\n",
		s.snapshot, m.Entries, s.files, m.Removes, size(m.Bytes), lost.String())
	if err != nil {
		return err
	}
	return s.out.Flush()
}

func (s *summarySink) end(e *format.End) error {
	ratio := "-"
	if s.payload > 0 {
		ratio = fmt.Sprintf("%.2f", float64(s.sent)/float64(s.payload))
	}
	for _, line := range [][2]string{
		{"snapshots", fmt.Sprint(e.Snapshots)},
		{"entries", fmt.Sprintf("%d, of these %d files", s.entries, s.filesTotal)},
		{"removes", fmt.Sprint(s.removes)},
		{"content", fmt.Sprintf("%s, of these %s by reference, %s copied from parents, %s in holes", size(s.bytes), size(s.refs), size(s.copied), size(s.holes))},
		{"unique", fmt.Sprintf("%s in %d chunks", size(s.unique), s.chunks)},
		{"payloads", fmt.Sprintf("%s, compression %s", size(s.payload), ratio)},
		{"losses", fmt.Sprint(s.losses)},
	} {
		if _, err := fmt.Fprintf(s.out, "%-10s %s\n", line[0], line[1]); err != nil {
			return err
		}
	}
	if s.verified {
		return s.checked()
	}
	return nil
}

// checked says what was verified, and what only whoever stores the stream can see:
// it keeps the listings of parents, and has chunks of its own.
func (s *summarySink) checked() error {
	text := "verified   every payload and every reference to a chunk\n"
	if s.held {
		text = "verified   every payload and every reference to a chunk that was sent\n" +
			"unchecked  references to chunks that the receiver has\n"
	}
	if s.copied > 0 {
		text += "unchecked  what is copied from parents\n"
	}
	_, err := s.out.WriteString(text)
	return err
}

// size returns a number of bytes as people read it.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	units := "KMGTPE"
	f := float64(n) / 1024
	i := 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
