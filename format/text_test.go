package format

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestText(t *testing.T) {
	sum := new(SumID([]byte("x")))
	extra := []Field{{"a b", []byte{0xc0}}, {"zz", []byte{0x93, 1, 2, 3}}}
	for _, c := range []struct {
		rec        Record
		text, json string
	}{
		{
			&Header{Version: 1, Producer: "p \"1\"\n", Created: &Time{-1, 5}, Features: []Feature{FeatureBase, FeatureZstd}},
			`bk created=[-1 5] features=[base zstd] producer="p \"1\"\x0a" version=1`,
			`{"kind":"bk","created":"1969-12-31T23:59:59.000000005Z","features":["base","zstd"],"producer":"p \"1\"\u000a","version":1}`,
		},
		{
			&Snapshot{ID: ID{1}, Unsorted: true, Roots: []string{"", "b\xff"}, Time: &Time{1 << 40, 0}, Origin: &Origin{System: "restic", ID: "\xfe", Extra: extra}, Estimate: &Estimate{Bytes: 1 << 63}},
			`snapshot estimate={bytes=9223372036854775808} id=0100000000000000000000000000000000000000000000000000000000000000` +
				` origin={"a b"=0xc0 id="\xfe" system=restic zz=0x93010203} roots=["" "b\xff"] sorted=false time=[1099511627776 0]`,
			`{"kind":"snapshot","estimate":{"bytes":9223372036854775808},"id":"0100000000000000000000000000000000000000000000000000000000000000",` +
				`"origin":{"id_b64":"/g==","system":"restic","extra":{"a b":"c0","zz":"93010203"}},"roots":["",{"b64":"Yv8="}],"sorted":false,"time":[1099511627776,0]}`,
		},
		{
			&Entry{Path: "ä", Type: TypeChar, Rdev: Rdev{1, 2}, Flags: []string{"x", "é"}, Xattrs: []Xattr{{"user.a", "\x00\xff"}}, Extra: extra},
			`entry "a b"=0xc0 flags=[x "\xc3\xa9"] path="\xc3\xa4" rdev=[1 2] type=char xattrs=[["user.a" "\x00\xff"]] zz=0x93010203`,
			`{"kind":"entry","flags":["x","é"],"path":"ä","rdev":[1,2],"type":"char","xattrs":[["user.a",{"b64":"AP8="}]],"extra":{"a b":"c0","zz":"93010203"}}`,
		},
		{
			&Data{ID: *sum, Size: 1, Payload: []byte("x"), Once: true},
			`data id=` + sum.String() + ` once=true size=1 payload=1:` + sum.String(),
			`{"kind":"data","id":"` + sum.String() + `","once":true,"size":1,"payload_size":1}`,
		},
		{
			&Refs{Chunks: []ChunkRef{{*sum, 7}}},
			`refs chunks=[[` + sum.String() + ` 7]]`,
			`{"kind":"refs","chunks":[["` + sum.String() + `",7]]}`,
		},
		{&EOF{SHA256: sum, Error: "e"}, `eof error="e" sha256=` + sum.String() + ` size=0`, `{"kind":"eof","error":"e","sha256":"` + sum.String() + `","size":0}`},
		{&CopyRange{Size: 1, HasFrom: true}, `copy from="" offset=0 size=1`, `{"kind":"copy","from":"","offset":0,"size":1}`},
		{&Extension{Name: "x-a b", Body: extra}, `"x-a b" "a b"=0xc0 zz=0x93010203`, `{"kind":"x-a b","extra":{"a b":"c0","zz":"93010203"}}`},
		{
			&Commit{Losses: []Loss{{Kind: "k", Count: 1, Paths: []string{"p"}}}},
			`commit bytes=0 data=0 digest=` + ID{}.String() + ` entries=0 losses=[{count=1 kind=k paths=["p"]}] removes=0`,
			`{"kind":"commit","bytes":0,"data":0,"digest":"` + ID{}.String() + `","entries":0,"losses":[{"count":1,"kind":"k","paths":["p"]}],"removes":0}`,
		},
		{&Hole{}, `hole invalid="key \"size\": 0 is less than 1"`, `{"kind":"hole","invalid":"key \"size\": 0 is less than 1"}`},
	} {
		if got := string(AppendText(nil, c.rec)); got != c.text {
			t.Errorf("text\n%s\nwant\n%s", got, c.text)
		}
		if got := string(AppendJSON(nil, c.rec)); got != c.json {
			t.Errorf("json\n%s\nwant\n%s", got, c.json)
		}
	}
}

func TestTextOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := genRecord().Draw(t, "record")
		text := string(AppendText(nil, rec))
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) || strings.Contains(text, " invalid=") {
			t.Fatal(text)
		}
		if line := AppendJSON(nil, rec); !json.Valid(line) {
			t.Fatalf("%s", line)
		}
	})
}
