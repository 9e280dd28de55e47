package tar

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/internal/acl"
)

func TestNumbers(t *testing.T) {
	for field, want := range map[string]int64{
		"0000600\x00": 0o600, "000600 \x00": 0o600, "   600 \x00": 0o600, "\x00\x00\x00\x00\x00\x00\x00\x00": 0, "7777777 ": 0o7777777,
		"\x80\x00\x00\x00\xff\xff\xff\xfe": 4294967294, "\xff\xff\xff\xff\xff\xff\xff\xff": -1, "\xff\xff\xff\xff\xff\xff\xff\x00": -256,
	} {
		if n, err := parseNumber([]byte(field)); n != want || err != nil {
			t.Errorf("%q is read as %d, %v; not %d", field, n, err, want)
		}
	}
	for _, field := range []string{"0000800\x00", "-000001\x00", "0x12\x00", "\x80\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff", "\xc0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		if n, err := parseNumber([]byte(field)); err == nil {
			t.Errorf("%q is read as %d", field, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "n")
		field := make([]byte, 12)
		putNumber(field, n)
		if got, err := parseNumber(field); got != n || err != nil {
			t.Fatalf("%d became %q and %d, %v", n, field, got, err)
		}
	})
	for n, octal := range map[int64]bool{0: true, 0o7777777: true, 0o10000000: false, -1: false} {
		field := make([]byte, 8)
		if putNumber(field, n) != octal {
			t.Errorf("%d is octal: %v", n, !octal)
		}
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]format.Time{
		"0": {}, "1.5": {Sec: 1, Nsec: 5e8}, "-0.5": {Sec: -1, Nsec: 5e8}, "-1.5": {Sec: -2, Nsec: 5e8}, "-1": {Sec: -1}, ".25": {Nsec: 25e7},
		"1.0000000019": {Sec: 1, Nsec: 1}, "-1.0000000019": {Sec: -2, Nsec: 999999998}, "10413792000.999999999": {Sec: 10413792000, Nsec: 999999999},
		"1.": {Sec: 1}, "-2147483648.000000001": {Sec: -2147483649, Nsec: 999999999},
	} {
		if got, err := parseSeconds(text); got != want || err != nil {
			t.Errorf("%q is read as %v, %v; not %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", ".", "x", "1.x", "1e5", "99999999999999999999", "-9223372036854775808.5", "1.5.5"} {
		if got, err := parseSeconds(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := format.Time{Sec: rapid.Int64Range(math.MinInt64+2, math.MaxInt64).Draw(t, "sec"), Nsec: rapid.Uint32Range(0, 999_999_999).Draw(t, "nsec")}
		if got, err := parseSeconds(formatSeconds(want)); got != want || err != nil {
			t.Fatalf("%v became %q and %v, %v", want, formatSeconds(want), got, err)
		}
	})
}

func TestPaxRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []paxRecord
		var data []byte
		for range rapid.IntRange(0, 5).Draw(t, "count") {
			p := paxRecord{rapid.StringMatching(`[A-Za-z.%]{1,12}`).Draw(t, "key"), string(rapid.SliceOfN(rapid.Byte(), 0, 1200).Draw(t, "value"))}
			want = append(want, p)
			data = appendPax(data, p.key, p.value)
		}
		got, err := parsePax(string(data))
		if err != nil || cmp.Diff(want, got, cmp.AllowUnexported(paxRecord{})) != "" {
			t.Fatalf("%q became %q and %q, %v", want, data, got, err)
		}
	})
	for n := range 200 {
		// Around lengths of which the number of digits changes.
		data := appendPax(nil, "k", strings.Repeat("v", n))
		if got, err := parsePax(string(data)); err != nil || len(got) != 1 || len(got[0].value) != n {
			t.Errorf("a value of %d bytes: %q, %v", n, data, err)
		}
	}
	for _, bad := range []string{"x", "5 a=b\n", "7 a=b\n", "6 a=bc", "6 abc\n", "5 =b\n", " a=b\n", "-6 a=b\n", "6 a=b\n6 ", "999999999999 a=b\n"} {
		if got, err := parsePax(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func TestXattrNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOf(rapid.SampledFrom([]rune("user.%=23D5é "))).Draw(t, "name")
		escaped := escapeXattr(name)
		if strings.Contains(escaped, "=") || unescapeXattr(escaped, false) != name {
			t.Fatalf("%q became %q and %q", name, escaped, unescapeXattr(escaped, false))
		}
	})
	if got := unescapeXattr("user.caf%C3%A9%", true); got != "user.café%" {
		t.Errorf("libarchive's escapes became %q", got)
	}
	if got := unescapeXattr("user.caf%C3%A9", false); got != "user.caf%C3%A9" {
		t.Errorf("GNU tar's name became %q", got)
	}
}

func TestXattrForms(t *testing.T) {
	archive := new(builder).
		pax(typePax, keyXattrPrefix+"user.a%253Db", "one", keyXattrPrefix+"user.empty", "", "RHT.security.selinux", "label").file("gnu", "1").
		pax(typePax, keyXattrPrefix+"user.caf%C3%A9", "cut", keyXattrPrefixEncoded+"user.caf%C3%A9", "d2hvbGU").file("bsd", "2").
		pax(typePax, keyXattrPrefixEncoded+"user.bad", "!!!").file("bad", "3").
		pax(typePax, keyXattrPrefix+"user.\x00", "x", keyXattrPrefix+strings.Repeat("n", 2000), "x").file("odd", "4").
		pax(typePax, "SCHILY.acl.ace", "everyone@:r").file("nfs", "5").end()
	l := mustRead(t, archive)
	for path, want := range map[string][]format.Xattr{
		"gnu": {{Name: "security.selinux", Value: "label\x00"}, {Name: "user.a%3Db", Value: "one"}, {Name: "user.empty"}},
		"bsd": {{Name: "user.café", Value: "whole"}},
		"bad": nil, "odd": nil, "nfs": nil,
	} {
		if d := cmp.Diff(want, l.Listing()[path].Entry.Xattrs); d != "" && len(want)+len(l.Listing()[path].Entry.Xattrs) > 0 {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
	if d := cmp.Diff(map[string]uint64{"xattr": 3, "acl": 1}, l.Losses()); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
}

func TestACL(t *testing.T) {
	users := func(name string) (uint32, bool) { return 77, name == "known" }
	nobody := func(string) (uint32, bool) { return 0, false }
	for _, test := range []struct{ text, want string }{
		{"user::rwx\nuser:known:r--\ngroup::r-x\nmask::rwx\nother::---\n", "user::rwx\nuser:77:r--\ngroup::r-x\nmask::rwx\nother::---\n"},
		{"user::rwx,user:alice:r--:1000,group::r-x,group:x:-w-:5,mask::rwx,other::---", "user::rwx\nuser:1000:r--\ngroup::r-x\ngroup:5:-w-\nmask::rwx\nother::---\n"},
		{"other::---\nmask::rwx\nuser:4294967294:r--\nuser:3:rwx # comment\ngroup::r-x\nuser::rw-", "user::rw-\nuser:3:rwx\nuser:4294967294:r--\ngroup::r-x\nmask::rwx\nother::---\n"},
		{"default:u::rwx,default:g::r-x,default:m:r,default:o::r", "user::rwx\ngroup::r-x\nmask::r--\nother::r--\n"},
		{"user::rw-\ngroup::r--\nother::r--\n", ""}, // the mode says that
	} {
		binary, err := acl.Parse(test.text, true, users, nobody)
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		text := ""
		if binary != "" {
			if text, err = acl.Format(binary); err != nil {
				t.Errorf("%q: %v", test.text, err)
			}
		}
		if text != test.want {
			t.Errorf("%q became %q, not %q", test.text, text, test.want)
		}
	}
	if full, err := acl.Parse("user::rw-\ngroup::r--\nother::r--\n", false, nil, nil); err != nil || len(full) != 4+3*8 {
		t.Errorf("a default ACL of three entries became %q, %v", full, err)
	}
	for _, bad := range []string{"", "user::rwx", "user::rwx\ngroup::rwx\nother::rwx\nuser:stranger:r--", "user:rwx", "user::rwz\ngroup::r\nother::r",
		"user::r\nuser::r\ngroup::r\nother::r", "ace::r\nuser::r\ngroup::r\nother::r", "user::r\ngroup::r\nother::r\nuser:1:r\nuser:1:w"} {
		if got, err := acl.Parse(bad, true, users, nobody); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
	for _, bad := range []string{"", "\x02\x00\x00", "\x01\x00\x00\x00", "\x02\x00\x00\x00\x01", "\x02\x00\x00\x00\x03\x00\x07\x00\xff\xff\xff\xff", "\x02\x00\x00\x00\x01\x00\x08\x00\xff\xff\xff\xff"} {
		if got, err := acl.Format(bad); err == nil {
			t.Errorf("%q is printed as %q", bad, got)
		}
	}
}

func TestFlags(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil, "nodump": {"nodump"}, "schg,nodump": {"immutable", "nodump"}, "uchg": {"user-immutable"}, "sappnd,sappend": {"append"},
		"casefold, noatime": {"casefold", "noatime"}, "x-own": {"x-own"},
	} {
		got, unknown := parseFlags(text)
		if cmp.Diff(want, got) != "" || len(unknown) > 0 {
			t.Errorf("%q is read as %q, %q", text, got, unknown)
		}
	}
	if got, unknown := parseFlags("nodump,shiny"); len(got) != 1 || len(unknown) != 1 {
		t.Errorf("an unknown flag: %q, %q", got, unknown)
	}
	if got := formatFlags([]string{"append", "casefold", "immutable", "nodump"}); got != "sappnd,casefold,schg,nodump" {
		t.Errorf("written as %q", got)
	}
	for _, f := range plainFlags {
		if got, unknown := parseFlags(formatFlags([]string{f})); len(got) != 1 || got[0] != f || len(unknown) > 0 {
			t.Errorf("%s became %q, %q", f, got, unknown)
		}
	}
}

func TestSparseMaps(t *testing.T) {
	var m sparseMap
	m.size = 100
	for _, p := range [][2]int64{{0, 10}, {10, 5}, {50, 0}, {60, 40}, {100, 0}} {
		if err := m.add(p[0], p[1]); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]format.Extent{{Offset: 0, Size: 15}, {Offset: 60, Size: 40}}, m.pieces); d != "" || m.stored() != 55 || m.check() != nil {
		t.Errorf("the map is %+v", m)
	}
	for _, p := range [][2]int64{{59, 1}, {99, 5}, {-1, 5}, {200, -1}, {math.MaxInt64, 1}} {
		if err := m.add(p[0], p[1]); err == nil {
			t.Errorf("%v was added", p)
		}
	}
	for _, records := range [][]paxRecord{
		{{keySparseMap, "0,1,2"}}, {{keySparseMap, "5,5,0,1"}}, {{keySparseMap, "a,b"}}, {{keySparseOffset, "1"}}, {{keySparseNumBytes, "1"}},
		{{keySparseOffset, "1"}, {keySparseOffset, "2"}}, {{keySparseOffset, "-1"}, {keySparseNumBytes, "2"}},
	} {
		if err := sparseFromPax(records, &sparseMap{}); err == nil {
			t.Errorf("%q is a map", records)
		}
	}
}

func TestSparseHostile(t *testing.T) {
	sparse := func(size, text string) []byte {
		return new(builder).pax(typePax, keySparseMajor, "1", keySparseMinor, "0", keySparseRealSize, size, keySparseName, "s").file("x", text).end()
	}
	page := func(text string) string { return text + strings.Repeat("\x00", 512-len(text)) }
	for name, archive := range map[string][]byte{
		"more data than there is": sparse("100", page("1\n0\n50\n")+"short"),
		"data without a place":    sparse("100", page("1\n0\n2\n")+"three"),
		"beyond the end":          sparse("10", page("1\n0\n50\n")+strings.Repeat("d", 50)),
		"endless":                 sparse("10", page("4000000000\n0\n0\n")),
		"too great":               sparse("10", page("1\n99999999999999999999\n1\n")),
		"no number":               sparse("10", page("one\n")),
		"not ended":               sparse("10", strings.Repeat("1", 512)),
		"no size":                 sparse("x", page("0\n")),
		"another version":         new(builder).pax(typePax, keySparseMajor, "2", keySparseMinor, "0").file("x", "").end(),
		"old, out of order": new(builder).member(typeSparse, "s", "", "ab", gnuMagic, func(h *block) {
			putNumber(h[386:398], 5)
			putNumber(h[398:410], 1)
			putNumber(h[410:422], 0)
			putNumber(h[422:434], 1)
			putNumber(h[483:495], 100)
		}).end(),
	} {
		l, err := readAll(t, strings.NewReader(string(archive)), Options{}, format.ExportOptions{})
		if err == nil || !strings.Contains(err.Error(), "at byte") {
			t.Errorf("%s: error %v, listing %q", name, err, tree(l.Listing()))
		}
	}
}
