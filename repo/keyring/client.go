package keyring

import (
	"errors"
	"fmt"

	"github.com/bk-backup/bk/repo/internal/mp"
	"github.com/bk-backup/bk/repo/seal"
)

// clientChunk holds all keys of a client (spec/repository.md, 4).
type clientChunk struct {
	client     seal.ClientID
	generation uint64
	name       string
	sign       seal.Key // Ed25519 seed
	receive    seal.Key // X25519 private key
	groups     []*Group
}

type clientBody struct {
	Client     []byte      `msgpack:"client"`
	Generation uint64      `msgpack:"generation"`
	Groups     []groupBody `msgpack:"groups"`
	Name       []byte      `msgpack:"name,omitempty"`
	Receive    []byte      `msgpack:"receive"`
	Sign       []byte      `msgpack:"sign"`
}

type groupBody struct {
	Chunker     string           `msgpack:"chunker,omitempty"`
	ChunkerKeys *chunkerKeysBody `msgpack:"chunker_keys,omitempty"`
	Compression string           `msgpack:"compression,omitempty"`
	Epochs      []epochBody      `msgpack:"epochs"`
	ID          []byte           `msgpack:"id"`
	Label       []byte           `msgpack:"label"`
	Name        []byte           `msgpack:"name,omitempty"`
	Own         bool             `msgpack:"own,omitempty"`
	Rules       []ruleBody       `msgpack:"rules,omitempty"`
	Split       []byte           `msgpack:"split"`
}

type chunkerKeysBody struct {
	Buzhash *uint32 `msgpack:"buzhash,omitempty"`
	Rabin   uint64  `msgpack:"rabin,omitempty"`
}

type epochBody struct {
	//lint:ignore U1000 msgpack reads it by reflection
	_msgpack struct{} `msgpack:",as_array"`
	Number   uint32
	Key      []byte
}

type ruleBody struct {
	//lint:ignore U1000 msgpack reads it by reflection
	_msgpack struct{} `msgpack:",as_array"`
	Pattern  []byte
	Chunker  string
}

func (c *clientChunk) encode() []byte {
	body := clientBody{
		Client: c.client[:], Generation: c.generation, Name: []byte(c.name),
		Receive: c.receive[:], Sign: c.sign[:], Groups: []groupBody{},
	}
	for _, g := range c.groups {
		b := groupBody{
			Chunker: g.Chunker, Compression: g.Compression, Epochs: []epochBody{}, ID: g.ID[:],
			Label: g.Label[:], Name: []byte(g.Name), Own: g.Own, Split: g.Split[:],
		}
		if g.ChunkerKeys != (ChunkerKeys{}) {
			b.ChunkerKeys = &chunkerKeysBody{Rabin: g.ChunkerKeys.Polynomial}
			if g.ChunkerKeys.HasSeed {
				b.ChunkerKeys.Buzhash = &g.ChunkerKeys.Seed
			}
		}
		for i := range g.Epochs {
			b.Epochs = append(b.Epochs, epochBody{Number: g.Epochs[i].Number, Key: g.Epochs[i].Key[:]})
		}
		for _, r := range g.Rules {
			b.Rules = append(b.Rules, ruleBody{Pattern: []byte(r.Pattern), Chunker: r.Chunker})
		}
		body.Groups = append(body.Groups, b)
	}
	return mp.Encode(&body)
}

// parseClient reads a client chunk. Its errors do not name the object.
func parseClient(content []byte) (*clientChunk, error) {
	var body clientBody
	if err := mp.Decode(content, &body); err != nil {
		return nil, err
	}
	c := &clientChunk{generation: body.Generation, name: string(body.Name)}
	err := errors.Join(
		fixed(c.client[:], body.Client, "client"),
		fixed(c.sign[:], body.Sign, "sign"),
		fixed(c.receive[:], body.Receive, "receive"),
	)
	for i := range body.Groups {
		g, groupErr := body.Groups[i].group()
		err = errors.Join(err, groupErr)
		c.groups = append(c.groups, g)
	}
	if err != nil {
		return nil, err
	}
	if err := checkGroups(c.groups); err != nil {
		return nil, fmt.Errorf("%w: %w", seal.ErrDamaged, err)
	}
	return c, nil
}

func (b *groupBody) group() (*Group, error) {
	g := &Group{Name: string(b.Name), Own: b.Own, Chunker: b.Chunker, Compression: b.Compression}
	err := errors.Join(
		fixed(g.ID[:], b.ID, "id"),
		fixed(g.Label[:], b.Label, "label"),
		fixed(g.Split[:], b.Split, "split"),
	)
	if b.ChunkerKeys != nil {
		g.ChunkerKeys.Polynomial = b.ChunkerKeys.Rabin
		if seed := b.ChunkerKeys.Buzhash; seed != nil {
			g.ChunkerKeys.Seed, g.ChunkerKeys.HasSeed = *seed, true
		}
	}
	for _, e := range b.Epochs {
		epoch := Epoch{Number: e.Number}
		err = errors.Join(err, fixed(epoch.Key[:], e.Key, "epochs"))
		g.Epochs = append(g.Epochs, epoch)
	}
	for _, r := range b.Rules {
		g.Rules = append(g.Rules, Rule{string(r.Pattern), r.Chunker})
	}
	return g, err
}
