package tree

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/bk-backup/bk/format"
)

// Listing is a listing that is stored.
type Listing struct {
	Chunks Loader
	Root   format.ID
}

// Item is one entry of a listing with its content, as encoded: it can be
// compared and put into another listing of the same chunks without decoding.
type Item struct {
	Path string

	loader Loader
	raw    []byte // body, content and eof, as they stand in a leaf
	n      int    // elements of the item's array
	// Where body and content end in raw.
	bodyEnd, contentEnd int
	bytes               uint64
}

// set makes it the item of a leaf.
func (it *Item) set(l Loader, from *item) {
	it.Path = strings.Clone(from.path)
	it.loader = l
	it.raw, it.n, it.bodyEnd, it.contentEnd, it.bytes = from.raw, from.n, from.bodyEnd, from.contentEnd, from.bytes
}

// Decode reads the entry into e, whose slices are used again and overwritten.
// It loads a chunk if the entry is a long one.
func (it *Item) Decode(ctx context.Context, e *format.Entry) error {
	return decodeEntry(ctx, it.loader, it.Path, it.raw[:it.bodyEnd], e)
}

func decodeEntry(ctx context.Context, l Loader, path string, body []byte, e *format.Entry) error {
	body, err := resolve(ctx, l, body)
	if err != nil {
		return fmt.Errorf("entry %.200q: %w", path, err)
	}
	rest, err := e.ParseBody(body, false)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes are left behind its map", len(rest))
	}
	if err != nil {
		return fmt.Errorf("entry %.200q of a listing: %w", path, err)
	}
	e.Path = path
	return nil
}

// IsFile reports whether the entry is a file, without decoding it.
func (it *Item) IsFile() bool { return it.n > 3 }

// Content returns what the entry consists of; it is empty for all but files.
// It is valid as long as the item.
func (it *Item) Content() Content {
	return Content{raw: it.raw[it.bodyEnd:it.contentEnd], size: it.bytes}
}

// Size returns the plain bytes of the content.
func (it *Item) Size() uint64 { return it.bytes }

// EOF returns the encoded body of the file's eof record if it says more than
// the size, else nil. It loads a chunk if that is long.
func (it *Item) EOF(ctx context.Context) ([]byte, error) {
	if it.contentEnd == len(it.raw) {
		return nil, nil
	}
	b, err := resolve(ctx, it.loader, it.raw[it.contentEnd:])
	if err != nil {
		return nil, fmt.Errorf("entry %.200q: %w", it.Path, err)
	}
	return b, nil
}

// Same reports whether two items have equal encodings but for the path: entry,
// content and eof, informative keys included.
func (it *Item) Same(other *Item) bool {
	return it.n == other.n && it.bodyEnd == other.bodyEnd && bytes.Equal(it.raw, other.raw)
}

// SameContent reports whether two items have equal contents.
func (it *Item) SameContent(other *Item) bool { return it.Content().Equal(other.Content()) }

// is reports whether it was set from an item of the same encoding.
func (it *Item) is(other *item) bool {
	return it.n == other.n && it.bodyEnd == other.bodyEnd && bytes.Equal(it.raw, other.raw)
}

// Clone returns a copy that stays valid.
func (it *Item) Clone() *Item {
	c := *it
	c.raw = slices.Clone(it.raw)
	return &c
}

// EncodeItem makes an item of an entry, its content, and the encoded body of
// its eof record if that says more than the size. Long parts are saved as
// chunks of their own. Content and eof must be empty for all but files.
func EncodeItem(ctx context.Context, c Chunks, e *format.Entry, content Content, eof []byte) (*Item, error) {
	it := new(Item)
	var enc itemEncoder
	return it, enc.encode(ctx, c, it, e, content, eof)
}

// itemEncoder makes items one after another in the same memory.
type itemEncoder struct{ body []byte }

func (enc *itemEncoder) encode(ctx context.Context, c Chunks, it *Item, e *format.Entry, content Content, eof []byte) error {
	if err := format.CheckPath(e.Path); err != nil {
		return err
	}
	if e.Type != format.TypeFile && (content.size > 0 || len(eof) > 0) {
		return fmt.Errorf("entry %.200q of the type %s has content", e.Path, e.Type)
	}
	enc.body = e.AppendBody(enc.body[:0], false)
	raw, err := appendBody(ctx, c, it.raw[:0], enc.body)
	if err != nil {
		return fmt.Errorf("entry %.200q: %w", e.Path, err)
	}
	n, bodyEnd := 3, len(raw)
	contentEnd := bodyEnd
	if e.Type == format.TypeFile {
		n = 4
		raw = content.appendTo(raw)
		contentEnd = len(raw)
	}
	if len(eof) > 0 {
		n = 5
		if raw, err = appendBody(ctx, c, raw, eof); err != nil {
			return fmt.Errorf("entry %.200q: %w", e.Path, err)
		}
	}
	*it = Item{Path: e.Path, loader: c, raw: raw, n: n, bodyEnd: bodyEnd, contentEnd: contentEnd, bytes: content.size}
	return nil
}

// appendBody appends an encoded map, or, if it is long, the id of a chunk with it.
func appendBody(ctx context.Context, c Chunks, dst, body []byte) ([]byte, error) {
	if len(body) <= bodySizeMax {
		return append(dst, body...), nil
	}
	if len(body) > format.BodySizeMax {
		return dst, fmt.Errorf("its body has %d bytes, more than %d", len(body), format.BodySizeMax)
	}
	plain := make([]byte, 0, len(body)+8)
	plain = append(appendStr(append(plain, 0x92), "body"), body...)
	id, err := c.Save(ctx, plain)
	if err != nil {
		return dst, fmt.Errorf("save a body of the listing: %w", err)
	}
	return append(append(dst, 0xc4, byte(len(id))), id[:]...), nil
}

// resolve returns an encoded map, which b is or names.
func resolve(ctx context.Context, l Loader, b []byte) ([]byte, error) {
	w := wire{b: b}
	if w.isMap() {
		return b, nil
	}
	id := format.ID(w.id())
	if w.err != nil {
		return nil, w.err
	}
	plain, err := l.Load(ctx, id)
	if err != nil {
		return nil, &NodeError{id, "body", err}
	}
	body, err := parseBody(plain)
	if err != nil {
		return nil, &NodeError{id, "body", err}
	}
	return body, nil
}

// parseBody returns the map in a chunk that has a long body.
func parseBody(plain []byte) ([]byte, error) {
	if len(plain) > format.BodySizeMax+16 {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(plain), format.BodySizeMax+16)
	}
	w := wire{b: plain}
	if n := w.array(2); w.err == nil && n != 2 {
		w.fail("it is an array of %d elements, not 2", n)
	}
	w.tag("body")
	if !w.isMap() {
		w.fail("it has no map")
	}
	body := w.skip()
	w.end()
	return body, w.err
}
