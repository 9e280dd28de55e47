package borg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// InitOptions say how a repository is made.
type InitOptions struct {
	// Encryption is one of borg's modes: none, authenticated,
	// authenticated-blake2, repokey, keyfile, repokey-blake2, keyfile-blake2; ""
	// means repokey-blake2.
	Encryption string
	// Passphrase is called for modes that have keys.
	Passphrase func(ctx context.Context) (string, error)
	// KeyFile returns the path of the file that the keys go to, for modes that do
	// not keep them in the repository. There must be no file yet.
	KeyFile func(repository string) (string, error)
	Now     func() time.Time // the clock
	Rand    io.Reader        // randomness for keys and ids
}

// The sizes that borg gives to its own repositories.
const (
	segmentsPerDir = 1000
	segmentSizeMax = 500 << 20
)

// readme is how borg knows a repository.
const readme = "This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n"

// ErrNoMode says that borg has no such mode of encryption.
var ErrNoMode = errors.New("there is no such mode of encryption")

// ErrExists says that there is something where a repository was to be made.
var ErrExists = errors.New("there is something already")

// Init makes an empty repository in dir, which must be missing or empty. It
// appears there when it is complete.
func Init(ctx context.Context, dir string, opts InitOptions) error {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("make a borg repository in %s: %w", dir, ErrExists)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make a borg repository: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	ks, err := newKeys(opts)
	if err != nil {
		return fmt.Errorf("make a borg repository: %w", err)
	}
	parent, err := filepath.Abs(filepath.Dir(filepath.Clean(dir)))
	if err != nil {
		return fmt.Errorf("make a borg repository: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, filepath.Base(dir)+".tmp-*")
	if err != nil {
		return fmt.Errorf("make a borg repository: %w", err)
	}
	if err = fill(ctx, tmp, ks, opts); err == nil {
		if err = replaceEmpty(tmp, dir); err == nil {
			err = syncDir(parent)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make a borg repository in %s: %w", dir, err), os.RemoveAll(tmp))
	}
	return nil
}

// newKeys draws the keys of a new repository.
func newKeys(opts InitOptions) (*keys, error) {
	name := opts.Encryption
	if name == "" {
		name = modeRepokeyBlake2.String()
	}
	n := slices.Index(modeNames[:], name)
	if n < 0 || mode(n) == modePassphrase {
		known := slices.DeleteFunc(slices.Sorted(slices.Values(modeNames[:])), func(s string) bool { return s == modePassphrase.String() })
		return nil, fmt.Errorf("%q: %w, but %s", name, ErrNoMode, strings.Join(known, ", "))
	}
	ks := &keys{mode: mode(n), tamRequired: mode(n).keyed()}
	if _, err := io.ReadFull(opts.Rand, ks.repository[:]); err != nil {
		return nil, fmt.Errorf("draw an id: %w", err)
	}
	if !ks.mode.keyed() {
		return ks, nil
	}
	var raw [32 + 64 + 64 + 4]byte
	if _, err := io.ReadFull(opts.Rand, raw[:]); err != nil {
		return nil, fmt.Errorf("draw keys: %w", err)
	}
	ks.encrypt = raw[:32]
	ks.authenticate, ks.name = make([]byte, ks.mode.keySize()), make([]byte, ks.mode.keySize())
	copy(ks.authenticate, raw[32:96]) // of 128 bytes the second half are zeros
	copy(ks.name, raw[96:160])
	ks.chunkSeed = int32(binary.BigEndian.Uint32(raw[160:]))
	return ks, ks.ready()
}

// fill writes a repository into an empty directory.
func fill(ctx context.Context, dir string, ks *keys, opts InitOptions) error {
	config := fmt.Sprintf("[repository]\nversion = 1\nsegments_per_dir = %d\nmax_segment_size = %d\nappend_only = 0\nstorage_quota = 0\nadditional_free_space = 0\nid = %x\n",
		segmentsPerDir, segmentSizeMax, ks.repository)
	if ks.mode.keyed() {
		key, err := sealNewKeys(ctx, ks, opts)
		if err != nil {
			return err
		}
		if !ks.mode.inFile() {
			config += "key = " + strings.ReplaceAll(key, "\n", "\n\t") + "\n"
		} else if err := writeKeyFile(ks, key, opts); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
		return err
	}
	var salt [tamSize]byte
	if _, err := io.ReadFull(opts.Rand, salt[:]); err != nil {
		return fmt.Errorf("draw a salt: %w", err)
	}
	m := &manifest{version: 1, timestamp: opts.Now().UTC().Format(timeLayout), tamRequired: ks.tamRequired}
	plain, err := m.pack(ks, salt[:])
	if err != nil {
		return err
	}
	log := newLogWriter(dir, segmentsPerDir, segmentSizeMax, 0)
	used := &nonces{file: filepath.Join(dir, nonceName)}
	if err := putManifest(log, ks, used, plain); err != nil {
		return err
	}
	if err := log.commit(); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "README"), []byte(readme)); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "config"), []byte(config+"\n"))
}

func sealNewKeys(ctx context.Context, ks *keys, opts InitOptions) (string, error) {
	if opts.Passphrase == nil {
		return "", errors.New("there is no passphrase")
	}
	passphrase, err := opts.Passphrase(ctx)
	if err != nil {
		return "", err
	}
	salt := make([]byte, 32)
	if _, err := io.ReadFull(opts.Rand, salt); err != nil {
		return "", fmt.Errorf("draw a salt: %w", err)
	}
	blob, err := sealKeys(ks, passphrase, salt)
	if err != nil {
		return "", err
	}
	return blob.encode(), nil
}

func writeKeyFile(ks *keys, key string, opts InitOptions) error {
	if opts.KeyFile == nil {
		return errors.New("there is no place for the key file")
	}
	name, err := opts.KeyFile(fmt.Sprintf("%x", ks.repository))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	_, err = fmt.Fprintf(file, "%s%x\n%s\n", keyFileHead, ks.repository, key)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	return syncDir(filepath.Dir(name))
}

// putManifest encrypts a manifest and appends it.
func putManifest(log *logWriter, ks *keys, used *nonces, plain []byte) error {
	content, err := Compression{}.packContent(plain)
	if err != nil {
		return err
	}
	iv := uint64(0)
	if ks.mode.encrypts() {
		if iv, err = used.take(len(content)); err != nil {
			return err
		}
	}
	_, err = log.append(tagPut, &manifestID, ks.appendObject(nil, content, iv))
	return err
}
