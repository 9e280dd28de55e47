package repo

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/bk-backup/bk/repo/internal/vectors"
	"github.com/bk-backup/bk/repo/seal"
)

// receiptVector is a receipt and what it says, or why it is refused.
type receiptVector struct {
	Text       string      `json:"text"`
	Refused    string      `json:"refused,omitempty"`
	Repository vectors.Hex `json:"repository,omitempty"` // the beginnings
	Client     vectors.Hex `json:"client,omitempty"`
	Sequence   uint64      `json:"sequence,omitempty"`
	ID         vectors.Hex `json:"id,omitempty"`
}

func TestVectorsReceipts(t *testing.T) {
	r := vectorRepo(t, "receipts", seal.SuiteAES256GCM)
	var made []receiptVector
	for _, sequence := range []uint64{1, 142, 1<<64 - 1} {
		text := r.Receipt(&Snapshot{ID: vectorID(byte(sequence)), Client: r.keys.Client(), Sequence: sequence})
		made = append(made, receiptVector{Text: text.String(), Repository: text.Repository[:], Client: text.Client[:], Sequence: sequence, ID: text.ID[:]})
	}
	good := made[1].Text
	for _, bad := range []struct{ why, old, new string }{
		{"another version", "bk1-", "bk2-"},
		{"a digit was copied wrongly", "-142-", "-143-"},
		{"the number has a leading zero", "-142-", "-0142-"},
		{"a part is missing", "-142-", "-"},
		{"a part is too short", "-142-8e", "-142-"},
	} {
		made = append(made, receiptVector{Text: strings.Replace(good, bad.old, bad.new, 1), Refused: bad.why})
	}
	for _, v := range vectors.Check(t, "receipts.json", made) {
		got, err := ParseReceipt(v.Text)
		if v.Refused != "" {
			if !errors.Is(err, ErrReceipt) {
				t.Errorf("%s: %v, %v", v.Refused, got, err)
			}
			continue
		}
		want := Receipt{[4]byte(v.Repository), [4]byte(v.Client), v.Sequence, [10]byte(v.ID)}
		if err != nil || got != want || got.String() != v.Text {
			t.Errorf("%s: %+v, %v", v.Text, got, err)
		}
		if again, err := ParseReceipt(" " + strings.ToUpper(v.Text) + "\n"); err != nil || again != want {
			t.Errorf("in capitals: %+v, %v", again, err)
		}
	}
}

// TestExpectReceipt: the snapshot of a receipt is there, forgotten or hidden.
func TestExpectReceipt(t *testing.T) {
	st := initStore(t)
	importOneByOne(t, st, randomHistory(rand.New(rand.NewPCG(3, 35)), 3, 5))
	r := mustOpen(t, st)
	list := relist(t, r)
	var all []Receipt
	for _, s := range list {
		all = append(all, r.Receipt(s))
	}
	opts := CheckOptions{Expect: all}
	if out := check(t, st, opts); len(out.Findings) > 0 {
		t.Errorf("%+v", out.Findings[0])
	}
	out := check(t, without(t, st, list[2].objectName()), opts)
	if len(out.Findings) != 1 || out.Findings[0].What != Hidden || !errors.Is(out.Findings[0].Err, ErrRolledBack) {
		t.Errorf("%+v", out.Findings)
	}
	if err := r.Forget(t.Context(), list[1:], "test"); err != nil {
		t.Fatal(err)
	}
	if out := check(t, st, opts); len(out.Findings) > 0 {
		t.Errorf("%+v", out.Findings[0])
	}
	for _, change := range []func(r *Receipt){
		func(r *Receipt) { r.Repository[0]++ },
		func(r *Receipt) { r.Client[0]++ },
	} {
		other := all[0]
		change(&other)
		if _, err := mustOpen(t, st).Check(t.Context(), CheckOptions{Expect: []Receipt{other}}); err == nil || !strings.Contains(err.Error(), "another") {
			t.Errorf("a receipt of somebody else's: %v", err)
		}
	}
	wrong := all[0]
	wrong.Sequence++
	if out := check(t, st, CheckOptions{Expect: []Receipt{wrong}}); len(out.Findings) != 1 {
		t.Errorf("a receipt with another sequence: %+v", out.Findings)
	}
}

func FuzzParseReceipt(f *testing.F) {
	f.Add(Receipt{Sequence: 7}.String())
	f.Add("bk1-00-1-2-3-4")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReceipt(text)
		if err != nil {
			return
		}
		if again, err := ParseReceipt(r.String()); err != nil || again != r {
			t.Errorf("%q: %+v, %v", text, again, err)
		}
	})
}
