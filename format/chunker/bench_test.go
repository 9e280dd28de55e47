package chunker_test

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	restic "github.com/restic/chunker"
)

var benchmarkTexts = []string{
	"fixed:64KiB",
	"gear:4KiB", "gear:16KiB", "gear:32KiB", "gear:64KiB", "gear:128KiB", "gear:256KiB", "gear:1MiB",
	"rabin:16KiB,64KiB,256KiB", "rabin",
}

// benchmarkCuts cuts a buffer of 8 MiB of random bytes as a caller would that
// refills it, and hands each chunk on.
func benchmarkCuts(b *testing.B, text string, use func(chunk []byte)) {
	data := randomBytes(1, 8<<20)
	splitter := newFactory(b, text).Splitter()
	chunks := 0
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			n := splitter.Cut(rest, true)
			use(rest[:n])
			rest = rest[n:]
			chunks++
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(data))/float64(chunks)/1024, "KiB/chunk")
}

func BenchmarkCut(b *testing.B) {
	for _, text := range benchmarkTexts {
		b.Run(text, func(b *testing.B) { benchmarkCuts(b, text, func([]byte) {}) })
	}
}

func BenchmarkCutAndHash(b *testing.B) {
	for _, text := range []string{"gear:64KiB", "rabin"} {
		b.Run(text, func(b *testing.B) {
			var sum byte
			benchmarkCuts(b, text, func(chunk []byte) {
				id := sha256.Sum256(chunk)
				sum ^= id[0]
			})
			_ = sum
		})
	}
}

// BenchmarkRestic is what BenchmarkCut of rabin is measured against. Its reader
// has restic/chunker copy each chunk.
func BenchmarkRestic(b *testing.B) {
	data := randomBytes(1, 8<<20)
	oracle := restic.New(nil, testPolynomial)
	buf := make([]byte, 0, restic.MaxSize)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		oracle.Reset(bytes.NewReader(data), testPolynomial)
		for {
			_, err := oracle.Next(buf)
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for _, text := range []string{"gear:64KiB", "rabin"} {
		b.Run(text, func(b *testing.B) {
			for b.Loop() {
				newFactory(b, text)
			}
		})
	}
}
