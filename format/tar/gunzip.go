package tar

import (
	"bufio"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// gunzip reads one gzip member behind the other, and passes over zeros behind
// them, as gzip does: tapes and block devices fill up the last block.
type gunzip struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newGunzip(in *bufio.Reader) (*gunzip, error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	z.Multistream(false)
	return &gunzip{in, z}, nil
}

func (g *gunzip) Read(p []byte) (int, error) {
	for {
		n, err := g.z.Read(p)
		if err != io.EOF {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		for b := byte(0); b == 0; {
			if b, err = g.in.ReadByte(); err != nil {
				return 0, err
			}
		}
		if err := g.in.UnreadByte(); err != nil {
			return 0, err
		}
		if err := g.z.Reset(g.in); err != nil {
			return 0, err
		}
		g.z.Multistream(false)
	}
}
