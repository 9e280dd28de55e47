package repo

import (
	"bytes"
	"encoding/hex"
	"math/bits"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// TestStorageSees holds what spec/security.md says of what storage can see: no
// name, content or id in any object, and sizes that are padded.
func TestStorageSees(t *testing.T) {
	for _, suite := range seal.Suites() {
		r := newRepo(t, suite)
		content := strings.Repeat("contents of a secret file, ", 40)
		m := model{{"secretdir": file{entry: modelEntry("secretdir", format.TypeDir)}, "secretdir/secretname": file{entry: modelEntry("secretdir/secretname", format.TypeFile), chunks: []string{content}}}}
		sink, err := r.Import(t.Context(), ImportOptions{Compression: format.LevelNone})
		if err != nil {
			t.Fatal(err)
		}
		if err := m.write(t, rewrite{sink}); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		snap := sink.Summary().Snapshots[0]
		id := format.SumID([]byte(content))
		label := r.label.LabelOf(seal.ChunkData, id)
		hidden := [][]byte{[]byte("secret"), []byte("contents"), id[:], label[:], snap.ID[:], snap.Root[:], r.own.Label[:], r.own.Epochs[0].Key[:]}
		kinds := map[seal.Kind]int{}
		err = r.store.List(t.Context(), "", func(info store.Info) error {
			stored, err := r.store.Get(t.Context(), info.Name, 1<<30)
			if err != nil {
				return err
			}
			h, err := seal.ParseHeader(stored)
			if err != nil {
				return err
			}
			kinds[h.Kind]++
			for _, b := range hidden {
				if bytes.Contains(stored, b) || strings.Contains(info.Name, hex.EncodeToString(b)) {
					t.Errorf("%s shows %.20q", info.Name, b)
				}
			}
			size := int64(len(stored))
			switch {
			case h.Kind == seal.KindConfig || h.Kind == seal.KindCredential:
			case h.Kind.IsPack() || h.Kind == seal.KindIndex:
				if seal.PaddedSize(size) != size {
					t.Errorf("%s has %d bytes", info.Name, size)
				}
			case size < 1<<10 || bits.OnesCount64(uint64(size)) != 1:
				t.Errorf("%s has %d bytes", info.Name, size)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(kinds) != 7 {
			t.Errorf("kinds of objects: %v", kinds)
		}
	}
}

// rewrite puts secrets into the snapshot's record.
type rewrite struct{ format.Sink }

func (w rewrite) Write(rec format.Record) error {
	if s, ok := rec.(*format.Snapshot); ok {
		s.Host, s.Tags, s.Comment, s.Roots = "secrethost", []string{"secret tag"}, "secret comment", []string{"secretdir"}
	}
	return w.Sink.Write(rec)
}
