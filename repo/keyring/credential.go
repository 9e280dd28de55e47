package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
	"github.com/bk-backup/bk/repo/store"
)

// CredentialID tells the credentials of a repository apart.
type CredentialID [16]byte

// String returns hexadecimal digits.
func (id CredentialID) String() string { return fmt.Sprintf("%x", id[:]) }

func (id CredentialID) objectName() string {
	return seal.Name{Kind: seal.KindCredential, Credential: id}.String()
}

// Credential is what anybody can see of a credential.
type Credential struct {
	ID      CredentialID
	Client  seal.ClientID // whose key it opens
	Kind    string
	Name    string // chosen by its owner
	Created time.Time
	// Used says that the keyring was opened with this one.
	Used bool
	// Err says why the rest could not be read; nil if it could. Client may then
	// be zero, or wrong.
	Err error
}

// credential is a credential as read from storage.
type credential struct {
	Credential
	header seal.Header
	params []byte
	sealed []byte // the client key
	ad     []byte // what it is authenticated with: header and map without it
}

// credentialBody is the map of a credential. Its keys stand in order, and
// "sealed" is the last of them.
type credentialBody struct {
	Client  []byte             `msgpack:"client"`
	Created stamp              `msgpack:"created"`
	Kind    string             `msgpack:"kind"`
	Name    []byte             `msgpack:"name,omitempty"`
	Params  msgpack.RawMessage `msgpack:"params"`
	Sealed  []byte             `msgpack:"sealed,omitempty"`
}

// sealCredential makes the object of a new credential for clientKey.
func sealCredential(ctx context.Context, c *Credential, kind Kind, cfg *config, clientKey *seal.Key, rand io.Reader) ([]byte, error) {
	if err := checkText(c.Name, "name"); err != nil {
		return nil, err
	}
	params, secret, err := kind.Wrap(ctx, rand)
	if err != nil {
		return nil, err
	}
	h := seal.Header{Kind: seal.KindCredential, Suite: cfg.suite, Repository: cfg.repository, Owner: c.Client}
	keys, err := seal.NewObjectKeys(secret, &h, rand)
	if err != nil {
		return nil, err
	}
	aead, err := keys.AEAD(seal.PurposeBody)
	if err != nil {
		return nil, err
	}
	body := credentialBody{Client: c.Client[:], Created: stampOf(c.Created), Kind: kind.Name(), Name: []byte(c.Name), Params: params}
	header := h.Append(nil)
	body.Sealed = aead.Seal(nil, 0, clientKey[:], append(header, mp.Encode(&body)...))
	object := seal.AppendSum(append(header, mp.Encode(&body)...))
	if len(object) > plainSizeMax {
		return nil, fmt.Errorf("a credential of kind %s with %d bytes: %w", kind.Name(), len(object), seal.ErrTooLarge)
	}
	return object, nil
}

// parseCredential reads a credential of the repository.
func parseCredential(id CredentialID, stored []byte, repository seal.RepositoryID) (*credential, error) {
	want := seal.Expect{Name: id.objectName(), Kind: seal.KindCredential, Repository: repository}
	if h, err := seal.ParseHeader(stored); err == nil {
		want.Owner = h.Owner // compared with the body below
	}
	content, h, err := seal.ParseObject(stored, want)
	if err != nil {
		return nil, err
	}
	c := &credential{header: h, Credential: Credential{ID: id, Client: h.Owner}}
	if err := c.parseBody(content); err != nil {
		return nil, fmt.Errorf("open %s: %w", want.Name, err)
	}
	c.ad = append(stored[:seal.HeaderSize:seal.HeaderSize], c.ad...)
	return c, nil
}

func (c *credential) parseBody(content []byte) error {
	var body credentialBody
	if err := mp.Decode(content, &body); err != nil {
		return err
	}
	var client seal.ClientID
	if err := fixed(client[:], body.Client, "client"); err != nil {
		return err
	}
	if client != c.Client {
		return fmt.Errorf("%w: header and content name different clients", seal.ErrDamaged)
	}
	if len(body.Sealed) != seal.KeySize+seal.Overhead {
		return fmt.Errorf("%w: the sealed key has %d bytes", seal.ErrDamaged, len(body.Sealed))
	}
	var err error
	c.Created, err = body.Created.time()
	c.Kind, c.Name, c.params, c.sealed = body.Kind, string(body.Name), body.Params, body.Sealed
	if err != nil {
		return err
	}
	c.ad, err = withoutSealed(content)
	return err
}

// withoutSealed returns the encoding of a credential's map without the key
// "sealed". The other keys may include some that this version does not know.
func withoutSealed(content []byte) ([]byte, error) {
	r := bytes.NewReader(content)
	dec := msgpack.NewDecoder(r)
	n, err := dec.DecodeMapLen()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", seal.ErrDamaged, err)
	}
	var out bytes.Buffer
	enc := msgpack.NewEncoder(&out)
	if err := enc.EncodeMapLen(n - 1); err != nil {
		return nil, err
	}
	for range n {
		begin := len(content) - r.Len()
		key, err := dec.DecodeString()
		if err == nil {
			_, err = dec.DecodeRaw()
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", seal.ErrDamaged, err)
		}
		if key != "sealed" {
			out.Write(content[begin : len(content)-r.Len()])
		}
	}
	return out.Bytes(), nil
}

// open returns the client key. It fails with ErrWrongKey if secret is not the
// one that the credential was made with.
func (c *credential) open(secret *seal.Key) (*seal.Key, error) {
	keys, err := seal.NewKeys(secret, &c.header)
	if err != nil {
		return nil, err
	}
	if err := keys.Check(&c.header); err != nil {
		return nil, err
	}
	aead, err := keys.AEAD(seal.PurposeBody)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, 0, c.sealed, c.ad)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.ID.objectName(), err)
	}
	key := seal.Key(plain)
	return &key, nil
}

// readCredentials reads all credentials of a repository. Those that are damaged
// have Err set; objects that are no credentials, or of another repository (an
// Init that was interrupted can leave one), are passed over.
func readCredentials(ctx context.Context, st store.Reader, repository seal.RepositoryID) ([]*credential, error) {
	var list []*credential
	err := st.List(ctx, seal.KindCredential.Dir(), func(info store.Info) error {
		n, ok := seal.ParseName(info.Name)
		if !ok {
			return nil
		}
		stored, err := st.Get(ctx, info.Name, plainSizeMax)
		if errors.Is(err, store.ErrNotFound) {
			return nil // removed since it was listed
		}
		id := CredentialID(n.Credential)
		var c *credential
		if err == nil {
			c, err = parseCredential(id, stored, repository)
		} else if errors.Is(err, store.ErrTooLarge) {
			err = fmt.Errorf("%w: %w", seal.ErrDamaged, err)
		}
		switch {
		case err == nil:
			list = append(list, c)
		case foreign(stored, repository):
		case errors.Is(err, seal.ErrDamaged) || errors.Is(err, seal.ErrVersion):
			c = &credential{Credential: Credential{ID: id, Err: err}}
			if h, err := seal.ParseHeader(stored); err == nil {
				c.Client = h.Owner // as far as one can tell
			}
			list = append(list, c)
		default:
			return err
		}
		return nil
	})
	return list, err
}

// foreign reports whether an object is in order, but of another repository.
func foreign(stored []byte, repository seal.RepositoryID) bool {
	h, err := seal.ParseHeader(stored)
	if err != nil || h.Repository == repository {
		return false
	}
	_, _, err = seal.ParseObject(stored, seal.Expect{Kind: h.Kind, Repository: h.Repository, Owner: h.Owner})
	return err == nil
}
