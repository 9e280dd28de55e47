package repo

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/repo/keyring"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// ErrRolledBack says that storage once showed something that it does not show
// any more, though no signed record says that it was forgotten.
var ErrRolledBack = errors.New("storage went back: this was there, and no record says that it was forgotten")

// seen is what this machine saw of a repository at one place last: the newest
// snapshots, the newest record of what was forgotten, and the client's newest
// keys. It lies in the cache,
// which is trusted as the machine is (spec/repository.md, section 10).
type seen struct {
	heads  []seenHead
	forget string // name of the object, as it was first sealed; empty: there was none
	keys   uint64 // generation of the client chunk
}

// seenHead is one of the snapshots with the highest sequence.
type seenHead struct {
	object   string // as it was first sealed
	sequence uint64
	id       format.ID
}

const seenMagic = "bk seen 1"

// seenSizeMax bounds the file: there are as many heads as snapshots were made at
// one time by several programs.
const seenSizeMax = 1 << 20

// seenPath is where it is kept: for each place of the repository apart, so that
// a copy elsewhere may be older. Empty without a cache.
func (r *Repository) seenPath() string {
	if r.opts.CacheDir == "" {
		return ""
	}
	client, place := r.keys.Client(), sha256.Sum256([]byte(store.Place(r.store)))
	return filepath.Join(r.opts.CacheDir, r.keys.Repository().String(), fmt.Sprintf("seen-%x-%x", client[:], place[:8]))
}

// loadSeen reads what was seen last. Whatever is wrong with the file, it is then
// as if nothing had been seen.
func (r *Repository) loadSeen() *seen {
	path := r.seenPath()
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if isNowhere(err) {
		return &seen{}
	}
	if err == nil {
		defer f.Close()
		var s *seen
		if s, err = parseSeen(io.LimitReader(f, seenSizeMax)); err == nil {
			return s
		}
	}
	r.seenUnread(path, err)
	return &seen{}
}

func parseSeen(in io.Reader) (*seen, error) {
	s := &seen{}
	lines := bufio.NewScanner(in)
	if !lines.Scan() || lines.Text() != seenMagic {
		return nil, errors.New("it does not begin as it should")
	}
	for lines.Scan() {
		words := strings.Split(lines.Text(), " ")
		switch {
		case words[0] == "snapshot" && len(words) == 4:
			sequence, err := strconv.ParseUint(words[2], 10, 64)
			if err != nil {
				return nil, err
			}
			id, err := format.ParseID(words[3])
			if err != nil {
				return nil, err
			}
			s.heads = append(s.heads, seenHead{words[1], sequence, id})
		case words[0] == "forget" && len(words) == 2:
			s.forget = words[1]
		case words[0] == "keys" && len(words) == 2:
			var err error
			if s.keys, err = strconv.ParseUint(words[1], 10, 64); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("it has the line %q", lines.Text())
		}
	}
	return s, lines.Err()
}

func (s *seen) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, seenMagic)
	for _, h := range s.heads {
		fmt.Fprintf(&b, "snapshot %s %d %s\n", h.object, h.sequence, h.id)
	}
	if s.forget != "" {
		fmt.Fprintf(&b, "forget %s\n", s.forget)
	}
	if s.keys > 0 {
		fmt.Fprintf(&b, "keys %d\n", s.keys)
	}
	return b.String()
}

// remember replaces what was seen, unless somebody else did so meanwhile, who
// knows better.
func (r *Repository) remember(was, is *seen) {
	path := r.seenPath()
	if path == "" || was.String() == is.String() {
		return
	}
	if now := r.loadSeen(); now.String() != was.String() {
		return
	}
	if err := writeSeen(path, is.String()); err != nil {
		r.seenUnkept(was, err)
	}
}

func writeSeen(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".seen-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// sawCommit notes a snapshot that was just committed here, in place of those that
// it was made behind. Another one that was seen before may be hidden: to forget it
// now would be to report it once and never again.
func (r *Repository) sawCommit(snap *Snapshot) {
	was := r.loadSeen()
	if was == nil {
		return
	}
	heads := []seenHead{headOf(snap)}
	for _, h := range was.heads {
		if h.id != snap.ID && !slices.Contains(snap.Heads, h.id) {
			heads = append(heads, h)
		}
	}
	r.remember(was, &seen{heads, was.forget, was.keys})
}

// sawForget notes a record that was just written here.
func (r *Repository) sawForget(name string) {
	if was := r.loadSeen(); was != nil {
		r.remember(was, &seen{was.heads, max(was.forget, name), was.keys})
	}
}

// checkKeys fails with ErrRolledBack if storage hides the client's newest keys,
// which this machine has seen: what was written now would be sealed under keys
// that were retired. Otherwise it notes them.
func (r *Repository) checkKeys(ctx context.Context) error {
	was := r.loadSeen()
	if was == nil {
		return nil
	}
	hidden, err := r.hiddenKeys(ctx, was)
	if err == nil && hidden != nil {
		err = hidden.Err
	}
	if is := r.Keyring().Generation(); err == nil && is > was.keys {
		r.remember(was, &seen{was.heads, was.forget, is})
	}
	return err
}

// hiddenKeys returns the client chunk that was seen and is not there now, nor a
// later one, if that is so.
func (r *Repository) hiddenKeys(ctx context.Context, was *seen) (*Damage, error) {
	if was.keys <= r.Keyring().Generation() {
		return nil, nil
	}
	// Others may have changed the keys since they were read.
	if err := r.reloadKeys(ctx); err != nil && !errors.Is(err, keyring.ErrRevoked) {
		return nil, err
	} else if err != nil || was.keys <= r.Keyring().Generation() {
		return nil, nil
	}
	name := seal.Name{Kind: seal.KindClient, Client: r.keys.Client(), Number: was.keys}
	return &Damage{name.String(), fmt.Errorf("generation %d of the client's keys, where %d is the last one: %w", was.keys, r.Keyring().Generation(), ErrRolledBack)}, nil
}

// headOf names a snapshot by its slot, which stays when it is sealed again.
func headOf(s *Snapshot) seenHead { return seenHead{s.slot().String(), s.Sequence, s.ID} }

// slotName is the name that an object had before it was sealed again.
func slotName(object string) string {
	name, ok := seal.ParseName(object)
	if !ok {
		return object
	}
	name.Resealed = 0
	return name.String()
}

// compareSeen returns what was seen before and is hidden now. If nothing is, it
// remembers what is there. was is what was seen before the snapshots, of which
// infos are the objects, were listed.
func (r *Repository) compareSeen(ctx context.Context, was *seen, infos []store.Info, list []*Snapshot) ([]Damage, error) {
	if was == nil {
		return nil, nil
	}
	there := make(map[string]bool, len(infos))
	for _, info := range infos {
		there[slotName(info.Name)] = true
	}
	is := &seen{}
	for _, s := range list {
		switch {
		case len(is.heads) == 0 || s.Sequence > is.heads[0].sequence:
			is.heads = []seenHead{headOf(s)}
		case s.Sequence == is.heads[0].sequence:
			is.heads = append(is.heads, headOf(s))
		}
	}
	var hidden []Damage
	if keys, err := r.hiddenKeys(ctx, was); err != nil {
		return nil, err
	} else if keys != nil {
		hidden = append(hidden, *keys)
	}
	is.keys = max(was.keys, r.Keyring().Generation())
	forgetThere := was.forget == ""
	for names := (objectNames{r: r, prefix: r.forgetDir()}); names.more(); {
		infos, err := names.next(ctx)
		if err != nil {
			return nil, err
		}
		for _, info := range infos {
			name := slotName(info.Name)
			is.forget = max(is.forget, name)
			forgetThere = forgetThere || name == was.forget
		}
	}
	if !forgetThere {
		hidden = append(hidden, Damage{was.forget, ErrRolledBack})
	}
	var gone *forgottenSet
	for _, h := range was.heads {
		if slices.ContainsFunc(list, func(s *Snapshot) bool { return s.ID == h.id }) {
			continue
		}
		if gone == nil {
			var err error
			if gone, err = r.forgotten(ctx); err != nil {
				return nil, err
			}
		}
		switch slot, _ := seal.ParseName(h.object); {
		case gone.has(h.id, slot):
		case there[h.object]:
			is.heads = append(is.heads, h) // it cannot be read now
		default:
			hidden = append(hidden, Damage{h.object, fmt.Errorf("snapshot %s: %w", h.id, ErrRolledBack)})
		}
	}
	if len(hidden) == 0 {
		r.remember(was, is)
	}
	return hidden, nil
}

// AcceptRollback forgets what was seen of the repository before: what storage
// shows from now on counts.
func (r *Repository) AcceptRollback() error {
	path := r.seenPath()
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !isNowhere(err) {
		return fmt.Errorf("forget what was seen of %s: %w", r, err)
	}
	return nil
}
