package filter

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/google/go-cmp/cmp"
)

// Streams as text, for tests of single rules. A line is a record:
//
//	features base held
//	snapshot 2 parent 1 unsorted host=h tag=t root=a/b
//	dir a | fifo a | link a | remove a | x note
//	file a one =two !three ~100     data, a reference, data sent once, a hole
//	copy 10 from b                  part of the file above
//	loss unreadable 3 a b
//
// Commits and the end follow by themselves.

// parseText makes records of a text.
func parseText(t *testing.T, text string) []format.Record {
	t.Helper()
	header := &format.Header{Version: format.Version}
	recs := []format.Record{header}
	var commit *format.Commit
	var eof *format.EOF
	closeFile := func() {
		if eof != nil {
			recs, eof = append(recs, eof), nil
		}
	}
	closeSnapshot := func() {
		if closeFile(); commit != nil {
			recs = append(recs, commit)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		arg := func(i int) string {
			if i < len(words) {
				return strings.TrimPrefix(words[i], "/")
			}
			return ""
		}
		switch words[0] {
		case "features":
			for _, f := range words[1:] {
				header.Features = append(header.Features, format.Feature(f))
			}
		case "snapshot":
			closeSnapshot()
			recs, commit = append(recs, parseSnapshot(t, words)), &format.Commit{}
		case "dir", "fifo", "link", "file":
			closeFile()
			e := &format.Entry{Path: arg(1), Type: format.Type(words[0])}
			if e.Type == "link" {
				e.Type, e.Target = format.TypeSymlink, "t"
			}
			if recs = append(recs, e); e.Type == format.TypeFile {
				eof = &format.EOF{}
				recs = parseContent(recs, eof, words[2:])
			}
		case "copy":
			size, _ := strconv.ParseUint(words[1], 10, 64)
			c := &format.CopyRange{Size: size}
			if len(words) > 2 {
				c.From, c.HasFrom = arg(3), true
			}
			eof.Size += size
			recs = append(recs, c)
		case "remove":
			closeFile()
			recs = append(recs, &format.Remove{Path: arg(1)})
		case "x":
			recs = append(recs, &format.Extension{Name: format.Kind("x-" + words[1])})
		case "loss":
			n, _ := strconv.ParseUint(words[2], 10, 64)
			commit.Losses = append(commit.Losses, format.Loss{Kind: words[1], Count: n, Paths: words[3:]})
		default:
			t.Fatalf("line %q", line)
		}
	}
	closeSnapshot()
	return append(recs, &format.End{})
}

func parseSnapshot(t *testing.T, words []string) *format.Snapshot {
	number := func(word string) format.ID {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return numberedID(n)
	}
	s := &format.Snapshot{ID: number(words[1])}
	for i := 2; i < len(words); i++ {
		name, value, _ := strings.Cut(words[i], "=")
		switch name {
		case "parent":
			i++
			s.Parent = number(words[i])
		case "unsorted":
			s.Unsorted = true
		case "host":
			s.Host = value
		case "tag":
			s.Tags = append(s.Tags, value)
		case "root":
			s.Roots = append(s.Roots, value)
		}
	}
	return s
}

func parseContent(recs []format.Record, eof *format.EOF, words []string) []format.Record {
	for _, word := range words {
		kind, text := word[0], word[1:]
		switch kind {
		case '~':
			n, _ := strconv.ParseUint(text, 10, 64)
			eof.Size += n
			recs = append(recs, &format.Hole{Size: n})
			continue
		case '=':
			ref := format.ChunkRef{ID: format.SumID([]byte(text)), Size: uint32(len(text))}
			if last, ok := recs[len(recs)-1].(*format.Refs); ok {
				last.Chunks = append(last.Chunks, ref)
			} else {
				recs = append(recs, &format.Refs{Chunks: []format.ChunkRef{ref}})
			}
		case '!':
			recs = append(recs, &format.Data{ID: format.SumID([]byte(text)), Size: uint32(len(text)), Once: true, Payload: []byte(text)})
		default:
			text = word
			recs = append(recs, &format.Data{ID: format.SumID([]byte(text)), Size: uint32(len(text)), Payload: []byte(text)})
		}
		eof.Size += uint64(len(text))
	}
	return recs
}

// formatText is parseText backwards. Ids that are not numbered ones are looked
// up in names.
func formatText(t *testing.T, stream []byte, names map[format.ID]string) string {
	t.Helper()
	for n := range uint64(20) {
		names[numberedID(n)] = fmt.Sprint(n)
	}
	var b strings.Builder
	r := format.NewReader(bytes.NewReader(stream), format.ReaderOptions{})
	line := func(text string, args ...any) { fmt.Fprintf(&b, "\n"+text, args...) }
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return strings.TrimSpace(b.String()) + "\n"
		}
		if err != nil {
			t.Fatalf("the filter made a bad stream: %v", err)
		}
		switch r := rec.(type) {
		case *format.Header:
			if len(r.Features) > 0 {
				line("features %s", strings.Trim(fmt.Sprint(r.Features), "[]"))
			}
		case *format.Snapshot:
			line("snapshot %s", names[r.ID])
			if !r.Parent.IsZero() {
				fmt.Fprintf(&b, " parent %s", names[r.Parent])
			}
			if r.Unsorted {
				b.WriteString(" unsorted")
			}
			if r.Host != "" {
				b.WriteString(" host=" + r.Host)
			}
			for _, tag := range r.Tags {
				b.WriteString(" tag=" + tag)
			}
			for _, root := range r.Roots {
				b.WriteString(" root=" + root)
			}
		case *format.Entry:
			typ := string(r.Type)
			if r.Type == format.TypeSymlink {
				typ = "link"
			}
			line("%s %s", typ, r.Path)
			if r.Path == "" {
				b.WriteString("/")
			}
		case *format.Data:
			mark := ""
			if r.Once {
				mark = "!"
			}
			names[r.ID] = string(r.Payload)
			fmt.Fprintf(&b, " %s%s", mark, r.Payload)
		case *format.Refs:
			for _, ref := range r.Chunks {
				fmt.Fprintf(&b, " =%s", names[ref.ID])
			}
		case *format.Hole:
			fmt.Fprintf(&b, " ~%d", r.Size)
		case *format.CopyRange:
			line("copy %d", r.Size)
			if r.HasFrom {
				b.WriteString(" from " + r.From)
			}
		case *format.Remove:
			line("remove %s", r.Path)
			if r.Path == "" {
				b.WriteString("/")
			}
		case *format.Extension:
			line("x %s", strings.TrimPrefix(string(r.Name), "x-"))
		case *format.Commit:
			for _, loss := range r.Losses {
				line("loss %s %d %s", loss.Kind, loss.Count, strings.Join(loss.Paths, " "))
			}
		}
	}
}

// filterText filters a stream that is given as text. Ids that the filter maps
// are shown as the numbers from which they come.
func filterText(t *testing.T, text string, opts Options) (string, Summary, error) {
	t.Helper()
	stream, err := encode(parseText(t, text))
	if err != nil {
		t.Fatalf("the test's stream is bad: %v", err)
	}
	opts.TempDir = t.TempDir()
	out, sum, err := runFilter(stream, opts)
	if err != nil {
		return "", sum, err
	}
	names := map[format.ID]string{}
	for n := range uint64(20) {
		names[MapID(numberedID(n), opts.Description())] = fmt.Sprint(n)
	}
	return formatText(t, out, names), sum, nil
}

// trimText takes the indentation of the tests away.
func trimText(text string) string {
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n") + "\n"
}

type textCase struct {
	name     string
	opts     Options
	in, want string
	err      string // instead of want
}

func runTextCases(t *testing.T, cases []textCase) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, _, err := filterText(t, tc.in, tc.opts)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want one with %q\n%s", err, tc.err, got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(trimText(tc.want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
