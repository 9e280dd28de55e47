package dir

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bk-backup/bk/repo/store"
)

// BenchmarkCreate has each of several writers create objects that lie in 256
// directories, as packs do, or all in one.
func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{4 << 10, 16 << 20} {
		for _, directories := range []int{1, 256} {
			for _, writers := range []int{1, 8} {
				b.Run(fmt.Sprintf("size=%dKiB/directories=%d/writers=%d", size>>10, directories, writers), func(b *testing.B) {
					s := create(b, Options{})
					data := make([]byte, size)
					rand.NewChaCha8([32]byte{}).Read(data)
					for i := range directories {
						if err := s.Create(b.Context(), fmt.Sprintf("packs/%02x/x", i), nil); err != nil {
							b.Fatal(err)
						}
					}
					b.SetBytes(int64(size))
					var created atomic.Int64
					var wg sync.WaitGroup
					b.ResetTimer()
					for range writers {
						wg.Go(func() {
							for i := int(created.Add(1)); i <= b.N; i = int(created.Add(1)) {
								if err := s.Create(b.Context(), fmt.Sprintf("packs/%02x/%d", i*7%directories, i), data); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}

func BenchmarkReadAt(b *testing.B) {
	for _, objects := range []int{32, 1024} {
		b.Run(fmt.Sprintf("size=16KiB/objects=%d", objects), func(b *testing.B) {
			s := create(b, Options{})
			name := func(i int) string { return fmt.Sprintf("packs/%02x/%d", i%256, i) }
			for i := range objects {
				if err := s.Create(b.Context(), name(i), make([]byte, 64<<10)); err != nil {
					b.Fatal(err)
				}
			}
			p := make([]byte, 16<<10)
			b.SetBytes(int64(len(p)))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := s.ReadAt(b.Context(), name(i*31%objects), p, int64(i%48<<10)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	s := create(b, Options{})
	const objects = 4096
	for i := range objects {
		if err := s.Create(b.Context(), fmt.Sprintf("packs/%02x/%064d", i%256, i), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := s.List(b.Context(), "packs/", func(store.Info) error { n++; return nil }); err != nil || n != objects {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/objects, "ns/object")
}
