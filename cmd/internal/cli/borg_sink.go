package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/borg"
)

// borgSinkOptions are the keys of -o for a sink for borg.
var borgSinkOptions = []string{"compression", "encryption", "key-file"}

// createBorg opens a borg repository for writing, or makes one.
func createBorg(ctx context.Context, app *App, place string, opts SinkOptions) (ForeignSink, error) {
	var encryption, compression, keyFile string
	if err := settings("borg", opts.Settings, keysOf(borgSinkOptions, &compression, &encryption, &keyFile)); err != nil {
		return nil, err
	}
	if strings.Contains(place, "::") {
		return nil, Usagef("borg:%s: name the repository alone; archives get their names from the snapshots", place)
	}
	how := borg.SinkOptions{
		Holder: borgHolder(ctx), Now: time.Now, Rand: rand.Reader, ClientNonce: borgNonceFile,
		Strict: opts.Strict, OnProgress: opts.OnProgress,
		OnWarning: func(text string) { app.Warnf("%s", text) },
		OnLoss:    func(path string, err error) { app.Warnf("%s: %v", Printable("/"+path), err) },
	}
	var err error
	if how.Compression, err = borg.ParseCompression(compression); err != nil {
		return nil, Usagef("-o compression: %w", err)
	}
	if opts.Held {
		return nil, Usagef("--held is for repositories of bk")
	}
	if how.Recut, err = borgRecuts(opts.Chunker); err != nil {
		return nil, err
	}
	read := borgOptions(app, place, RoleTarget)
	_, err = os.Stat(filepath.Join(place, "config"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		passphrase, err := initBorg(ctx, app, place, encryption, keyFile)
		if err != nil {
			return nil, err
		}
		read.Passphrase = func(context.Context) (string, error) { return passphrase, nil }
	case err != nil:
		return nil, fmt.Errorf("look for a borg repository: %w", err)
	}
	st, err := openLocal(ctx, place)
	if err != nil {
		return nil, err
	}
	if keyFile != "" {
		read.KeyFile = func(context.Context, string) ([]byte, error) { return os.ReadFile(keyFile) }
	}
	s, err := borg.OpenSink(ctx, place, st, read, how)
	if err != nil {
		st.Close()
		return nil, borgError(err)
	}
	if encryption != "" && encryption != s.Encryption() {
		return nil, errors.Join(Usagef("-o encryption=%s: there is a repository already, and its mode is %s", encryption, s.Encryption()), s.Close())
	}
	return borgSink{s}, nil
}

// borgRecuts reports whether a --chunker has content cut anew.
func borgRecuts(chunker []string) (bool, error) {
	switch {
	case len(chunker) == 0 || slices.Equal(chunker, []string{"buzhash"}) || slices.Equal(chunker, []string{"target"}):
		return true, nil
	case slices.Equal(chunker, []string{"keep"}):
		return false, nil
	}
	return false, Usagef("--chunker: a borg repository takes keep, or buzhash with its own seed, which is the default")
}

// initBorg makes a borg repository, and returns its passphrase.
func initBorg(ctx context.Context, app *App, place, encryption, keyFile string) (passphrase string, err error) {
	err = borg.Init(ctx, place, borg.InitOptions{
		Encryption: encryption, Now: time.Now, Rand: rand.Reader,
		Passphrase: func(ctx context.Context) (_ string, err error) {
			passphrase, err = app.Passphrase(ctx, SecretSource{
				Variables: slices.Insert(RoleTarget.secretsWith("BORG_PASSPHRASE"), 1, "BORG_NEW_PASSPHRASE"),
				Prompt:    "new passphrase for borg:" + place, Twice: true,
			})
			return passphrase, err
		},
		KeyFile: func(string) (string, error) { return newBorgKeyFile(place, keyFile) },
	})
	switch {
	case errors.Is(err, borg.ErrExists):
		return "", &Error{Err: err, Fix: "name a directory that is empty, that is not there, or that is a borg repository"}
	case errors.Is(err, borg.ErrNoMode):
		return "", Usagef("-o encryption: %w", err)
	}
	return passphrase, err
}

// newBorgKeyFile says where the key file of a new repository goes: where the
// option or BORG_KEY_FILE says, or among borg's keys under the name that borg
// would give it.
func newBorgKeyFile(place, keyFile string) (string, error) {
	if keyFile != "" {
		return keyFile, nil
	}
	if name := os.Getenv("BORG_KEY_FILE"); name != "" {
		return name, nil
	}
	dir, err := borgKeysDir()
	if err != nil {
		return "", err
	}
	full, err := filepath.Abs(place)
	if err != nil {
		return "", fmt.Errorf("name a key file: %w", err)
	}
	base := strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' {
			return r
		}
		return '_'
	}, strings.Trim(full, "/"))
	name := filepath.Join(dir, base)
	for n := 2; ; n++ {
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			return name, nil
		}
		name = filepath.Join(dir, fmt.Sprintf("%s.%d", base, n))
	}
}

// borgNonceFile is where a borg on this machine notes which counters of a
// repository's encryption it has used.
func borgNonceFile(id string) string {
	dir := os.Getenv("BORG_SECURITY_DIR")
	if dir == "" {
		config, err := borgConfigDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(config, "security")
	}
	return filepath.Join(dir, id, "nonce")
}

// borgHolder is how borg on this machine would name this process in a lock: by
// the machine's full name and the address of its first network card, or by
// BORG_HOST_ID. So it can tell whose lock is left behind.
func borgHolder(ctx context.Context) borg.Holder {
	h := borg.Holder{Host: os.Getenv("BORG_HOST_ID"), PID: os.Getpid()}
	if h.Host != "" {
		return h
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if full, err := net.DefaultResolver.LookupCNAME(short, name); err == nil && full != "" {
		name = strings.TrimSuffix(full, ".")
	}
	h.Host = fmt.Sprintf("%s@%d", name, cardNumber())
	return h
}

// cardNumber returns the address of the first network card that is in use, as a
// number.
func cardNumber() (n uint64) {
	list, err := net.Interfaces()
	if err != nil {
		return 0
	}
	for _, card := range list {
		addresses, err := card.Addrs()
		if err != nil || len(addresses) == 0 || len(card.HardwareAddr) != 6 || bytes.Equal(card.HardwareAddr, make([]byte, 6)) {
			continue
		}
		for _, b := range card.HardwareAddr {
			n = n<<8 | uint64(b)
		}
		return n
	}
	return 0
}

type borgSink struct{ *borg.Sink }

// Write implements format.Sink.
func (s borgSink) Write(rec format.Record) error { return borgError(s.Sink.Write(rec)) }

func (s borgSink) Sums() ForeignSums {
	w := s.Summary()
	return ForeignSums{Snapshots: w.Snapshots, Held: w.Held, Entries: w.Entries, Bytes: w.Bytes, New: w.NewBytes, Stored: w.Stored, Losses: w.Losses}
}
