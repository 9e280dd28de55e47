package tar

import (
	stdtar "archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
)

// oracle lists the regular files of an archive as archive/tar reads it: the
// last of each name. It is nil where that refuses the archive, or where the two
// may differ: archive/tar knows neither ".." nor what lies below links.
func oracle(archive []byte) map[string][32]byte {
	files := map[string][32]byte{}
	r := stdtar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil || h.Format == stdtar.FormatUnknown {
			return nil
		}
		path, ok := cleanName(h.Name)
		if h.Typeflag == stdtar.TypeDir && ok && files[path] == [32]byte{} {
			continue
		}
		_, twice := files[path]
		simple := h.Typeflag == stdtar.TypeReg || h.Typeflag == stdtar.TypeGNUSparse
		if !ok || format.CheckPath(path) != nil || path == "" || !simple || strings.HasSuffix(h.Name, "/") || twice || h.Size > 1<<24 {
			return nil
		}
		for name := range files {
			if format.IsBelow(path, name) || format.IsBelow(name, path) {
				return nil
			}
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return nil
		}
		files[path] = [32]byte(sum.Sum(nil))
	}
}

// seeds are archives with every form of header.
func seeds(f *testing.F) {
	f.Add(new(builder).dir("d").file("d/a", "1").link("b", "d/a").end())
	f.Add(new(builder).pax(typePaxGlobal, "uid", "7").pax(typePax, "path", "p", keyXattrPrefix+"user.a", "b", keyACLAccess, "user::r\ngroup::r\nother::r\nmask::w").file("x", "2").end())
	f.Add(new(builder).pax(typePax, keySparseMajor, "1", keySparseMinor, "0", keySparseRealSize, "1000", keySparseName, "s").
		file("x", "1\n500\n4\n"+strings.Repeat("\x00", 504)+"data").end())
	f.Add(new(builder).pax(typePax, keySparseSize, "100", keySparseMap, "5,1,10,2").file("s", "abc").end())
	f.Add(new(builder).pax(typePax, keySparseSize, "100", keySparseOffset, "5", keySparseNumBytes, "3").file("s", "abc").end())
	f.Add(new(builder).member(typeSparse, "s", "", "ab", gnuMagic, func(h *block) {
		putNumber(h[386:398], 5)
		putNumber(h[398:410], 2)
		putNumber(h[483:495], 100)
	}).end())
	f.Add(new(builder).member(typeLongName, "L", "", "long\x00", gnuMagic).member(typeDumpDir, "d", "", "Ya\x00Nb\x00\x00", gnuMagic).end())
	f.Add(appendSnapshot(nil, &format.Snapshot{ID: format.ID{1}, Host: "h"}))
}

// FuzzMembers takes any bytes apart, without goroutines in between, and
// compares the files with those that archive/tar finds.
func FuzzMembers(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, archive []byte) {
		if len(archive) > 1<<16 {
			return
		}
		archive = repair(archive)
		r := newMembers(newBlocks(bytes.NewReader(archive), 0))
		files := map[string][32]byte{}
		for {
			m, err := r.next()
			if err == io.EOF {
				break
			}
			if err == nil {
				err = takeFile(t, r, m, files)
			}
			if err != nil {
				var place *offsetError
				if !errors.As(err, &place) {
					t.Fatalf("an error without a place: %v", err)
				}
				return
			}
		}
		for name, sum := range oracle(archive) {
			if files[name] != sum {
				t.Fatalf("%q is %x, archive/tar reads %x", name, files[name], sum)
			}
		}
	})
}

// takeFile reads a member as a parser does, and holds its entry to the rules of
// the stream.
func takeFile(t *testing.T, r *members, m *member, files map[string][32]byte) error {
	e, _ := new(decoder).entry(m)
	if e == nil || e.Type != format.TypeFile || m.fileSize() > 1<<24 {
		return r.skipRest(m, 0)
	}
	if _, err := format.AppendRecord(nil, e); err != nil {
		t.Fatalf("an entry against the rules: %v", err)
	}
	content := make([]byte, m.fileSize())
	pieces := []format.Extent{{Size: uint64(m.rest())}}
	if m.sparse != nil {
		pieces = m.sparse.pieces
	}
	taken := int64(0)
	for _, x := range pieces {
		if err := r.read(content[x.Offset : x.Offset+x.Size]); err != nil {
			return err
		}
		taken += int64(x.Size)
	}
	files[e.Path] = sha256.Sum256(content)
	return r.skipRest(m, taken)
}

// FuzzRead reads any bytes as a system does: what comes out must be a stream.
func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, archive []byte) {
		if len(archive) > 1<<16 {
			return
		}
		archive = repair(archive)
		l, err := readAll(t, bytes.NewReader(archive), Options{Workers: 1}, format.ExportOptions{ListingOnly: tooMuch(archive)})
		if format.ClassOf(err) != "" || err == nil && l.Commits() != 1 {
			t.Fatalf("what was read is no stream: %v", err)
		}
	})
}

// tooMuch reports that a sparse file in the archive is so long that a test has
// no time for its content.
func tooMuch(archive []byte) bool {
	r := newMembers(newBlocks(bytes.NewReader(archive), 0))
	for {
		m, err := r.next()
		if err != nil {
			return false
		}
		if m.fileSize() > 1<<24 {
			return true
		}
		if r.skipRest(m, 0) != nil {
			return false
		}
	}
}

// repair makes the checksums right, or hardly any input would be an archive.
func repair(archive []byte) []byte {
	out := bytes.Clone(archive)
	for at := 0; at+blockSize <= len(out); at += blockSize {
		b := (*block)(out[at : at+blockSize])
		if string(b[257:262]) == "ustar" && !b.checks() {
			b.seal()
		}
	}
	return out
}

// TestOracle writes archives with archive/tar, in all of its formats.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var buf bytes.Buffer
		w := stdtar.NewWriter(&buf)
		type want struct {
			h    stdtar.Header
			data string
		}
		wants := map[string]want{}
		for i := range rapid.IntRange(0, 6).Draw(rt, "members") {
			name := fmt.Sprintf("%s%d", rapid.StringMatching(`[a-zé]{1,120}(/[b]{1,60}){0,2}`).Draw(rt, "name"), i)
			data := rapid.StringN(0, 200, 1200).Draw(rt, "data")
			h := stdtar.Header{Typeflag: stdtar.TypeReg, Name: name, Size: int64(len(data)), Mode: rapid.Int64Range(0, 0o7777).Draw(rt, "mode"),
				Uid: rapid.IntRange(0, 1<<32-1).Draw(rt, "uid"), Gid: rapid.IntRange(0, 1<<32-1).Draw(rt, "gid"),
				Uname: rapid.StringMatching(`[a-z]{0,40}`).Draw(rt, "user"), ModTime: time.Unix(rapid.Int64Range(-1<<33, 1<<36).Draw(rt, "sec"), rapid.Int64Range(0, 999999999).Draw(rt, "nsec")),
				Format: rapid.SampledFrom([]stdtar.Format{stdtar.FormatUSTAR, stdtar.FormatPAX, stdtar.FormatGNU}).Draw(rt, "format")}
			if h.Format == stdtar.FormatPAX {
				h.PAXRecords = map[string]string{keyXattrPrefix + "user.x": rapid.StringN(1, 5, 20).Draw(rt, "xattr")}
			} else {
				h.ModTime = h.ModTime.Truncate(time.Second)
			}
			if w.WriteHeader(&h) != nil {
				continue // more than that format can hold
			}
			if _, err := io.WriteString(w, data); err != nil {
				rt.Fatal(err)
			}
			wants[name] = want{h, data}
		}
		if err := w.Close(); err != nil {
			rt.Fatal(err)
		}
		l := mustRead(t, buf.Bytes())
		if len(l.Listing()) != len(wants) || len(l.Losses()) > 0 {
			rt.Fatalf("%d objects, not %d, losses %v", len(l.Listing()), len(wants), l.Losses())
		}
		for name, w := range wants {
			o := l.Listing()[name]
			if o == nil || string(o.Content()) != w.data {
				rt.Fatalf("%q: %+v, not %q", name, o, w.data)
			}
			e := o.Entry
			if int64(e.Mode) != w.h.Mode || int(e.UID) != w.h.Uid || int(e.GID) != w.h.Gid || e.User != w.h.Uname || e.Mtime != format.TimeOf(w.h.ModTime) {
				rt.Fatalf("%q: %+v, not %+v", name, e, w.h)
			}
			if x := w.h.PAXRecords[keyXattrPrefix+"user.x"]; x != "" && (len(e.Xattrs) != 1 || e.Xattrs[0].Value != x) {
				rt.Fatalf("%q: attributes %q, not %q", name, e.Xattrs, x)
			}
		}
	})
}

// FuzzFields decodes the parts of headers.
func FuzzFields(f *testing.F) {
	f.Add("6 a=b\n", []byte("0000644\x00"), "user::rwx\ngroup::r-x\nother::r--\nuser:5:r--\nmask::r--")
	f.Add("30 mtime=-0.5\n", []byte("\x80\x00\x00\x01"), "-1.25")
	f.Fuzz(func(t *testing.T, pax string, field []byte, text string) {
		if records, err := parsePax(pax); err == nil {
			var again []byte
			for _, p := range records {
				again = appendPax(again, p.key, p.value)
			}
			if got, err := parsePax(string(again)); err != nil || len(got) != len(records) {
				t.Fatalf("%q: %v", again, err)
			}
			_ = sparseFromPax(records, &sparseMap{})
		}
		if n, err := parseNumber(field); err == nil && len(field) > 0 && len(field) <= 12 {
			again := make([]byte, 12)
			putNumber(again, n)
			if got, err := parseNumber(again); got != n || err != nil {
				t.Fatalf("%q is %d, then %d, %v", field, n, got, err)
			}
		}
		if list, err := acl.Parse(text, false, nil, nil); err == nil {
			printed, err := acl.Format(list)
			if err != nil {
				t.Fatalf("%q: %v", list, err)
			}
			if got, err := acl.Parse(printed, false, nil, nil); err != nil || got != list {
				t.Fatalf("%q became %q: %v", list, got, err)
			}
		}
		if s, err := parseSeconds(text); err == nil && s.Sec > -1<<62 {
			if got, err := parseSeconds(formatSeconds(s)); got != s || err != nil {
				t.Fatalf("%q is %v, then %v, %v", text, s, got, err)
			}
		}
		if path, ok := cleanName(text); ok && path != "" && !strings.Contains(path, "\x00") {
			if err := format.CheckPath(path); err != nil && format.ClassOf(err) != format.ClassLimit {
				t.Fatalf("%q became the path %q: %v", text, path, err)
			}
		}
	})
}
