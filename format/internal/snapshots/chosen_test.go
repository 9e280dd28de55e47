package snapshots

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bk-backup/bk/format"
)

// place is a system with snapshots 1 to 3, of which some can be damaged.
type place struct {
	damage []error
	err    error
}

type one struct{ id format.ID }

func (p *place) String() string { return "the place" }

func (p *place) list(context.Context) ([]*one, []error, error) {
	return []*one{{format.ID{1}}, {format.ID{2}}, {format.ID{3}}}, p.damage, p.err
}

func (p *place) one(_ context.Context, id format.ID) (*one, error) {
	if id[0] > 3 {
		return nil, errors.New("no such snapshot")
	}
	return &one{id}, nil
}

func TestChoose(t *testing.T) {
	id := func(n byte) format.ID { return format.ID{n} }
	for name, c := range map[string]struct {
		opts    format.ExportOptions
		damage  string
		list    []byte
		parents []byte // 0: none
		err     string
	}{
		"all":             {list: []byte{1, 2, 3}, parents: []byte{0, 1, 2}},
		"all, based":      {opts: format.ExportOptions{Base: id(2)}, list: []byte{1, 2, 3}, parents: []byte{2, 1, 2}},
		"some, backwards": {opts: format.ExportOptions{Snapshots: []format.ID{id(3), id(1)}, Base: id(2)}, list: []byte{3, 1}, parents: []byte{2, 3}},
		"full":            {opts: format.ExportOptions{Full: true, Base: id(2)}, list: []byte{1, 2, 3}, parents: []byte{0, 0, 0}},
		"flat":            {opts: format.ExportOptions{Flat: true}, list: []byte{1, 2, 3}, parents: []byte{0, 0, 0}},
		"no such":         {opts: format.ExportOptions{Snapshots: []format.ID{id(1), id(9)}}, err: "export snapshot 09"},
		"no such base":    {opts: format.ExportOptions{Base: id(9), Full: true}, err: "export a difference to snapshot 09"},
		"damage":          {damage: "broken", err: "export all snapshots: broken"},
		"damage of others": {damage: "broken", opts: format.ExportOptions{Snapshots: []format.ID{id(1)}},
			list: []byte{1}, parents: []byte{0}},
	} {
		p := &place{}
		if c.damage != "" {
			p.damage = []error{errors.New(c.damage)}
		}
		got, err := Choose(t.Context(), &c.opts, p.list, p.one)
		if err != nil || c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) || c.err == "" {
				t.Errorf("%s: error %v, not %q", name, err, c.err)
			}
			continue
		}
		var list, parents []byte
		for i, s := range got.List {
			list = append(list, s.id[0])
			if parent := got.Parent(i); parent != nil {
				parents = append(parents, parent.id[0])
			} else {
				parents = append(parents, 0)
			}
		}
		if !slices.Equal(list, c.list) || !slices.Equal(parents, c.parents) {
			t.Errorf("%s: %v with parents %v, not %v with %v", name, list, parents, c.list, c.parents)
		}
		if based := got.Base != nil; based != (!c.opts.Base.IsZero() && !c.opts.Whole()) {
			t.Errorf("%s: a base is there %v", name, based)
		}
	}
	bad := errors.New("bad")
	if _, err := Choose(t.Context(), &format.ExportOptions{}, (&place{err: bad}).list, (&place{}).one); err != bad {
		t.Error(err)
	}
}

func TestHeld(t *testing.T) {
	as := func(s *one) []format.HeldID {
		return []format.HeldID{{ID: s.id}, {ID: format.ID{s.id[0], 1}, Changed: true}}
	}
	p := &place{}
	got, err := Held(t.Context(), p, p.list, as)
	if err != nil || len(got) != 3 || !slices.Equal(got[1], as(&one{format.ID{2}})) {
		t.Error(got, err)
	}
	p.damage = []error{errors.New("broken")}
	if _, err := Held(t.Context(), p, p.list, as); err == nil || err.Error() != "find out what the place holds: broken" {
		t.Error(err)
	}
	p.err = errors.New("bad")
	if _, err := Held(t.Context(), p, p.list, as); err != p.err {
		t.Error(err)
	}
}
