package chunker

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// buzhashBase is the value of each byte before the seed: 256 numbers of 32 bits,
// highest byte first. They are borg's, and its cuts depend on them.
const buzhashBase = "" +
	"e7f831ecf4026465afb50cae6d553c7ad639efe319a7b8959aba5b215417d6d435fd2b84d1f6a1593f8e323fb419551cf444cebf21dc3b80de8d1e3684a32436" +
	"beb35a9da36f24aaa4e6018698d18ffe3f042f9edb228bcd096474b75c20c2f7f9eec872e8625275b9d38f80d48eb71622a950b43cbaaeaac37cddd38fea6f6a" +
	"1d55d5267fd6d3b3daa072ee4345ac40a077c6428f2bd45b2850911055557613ffc17311d961ffefe532c287aab9593746d38365b065c703f2d91d0f92cd4bb0" +
	"4007c712f35509dd505b2f69557ead81310f4563bddc5be89760f38c701e02050015724414912826dc4ca32b67b196de5db292e88c1b406b01f34075fa2520f7" +
	"73bc37ab1e18bc30fe2c6cb320c522d05639e3db942bda35899af9d1ced4403598cc025b255f577170fefa24e928fa4d2c030405b932559020cb63bda166305d" +
	"80e52c0aa8fafe2f1ad13f7dcfaf36856c83a1997d26718ade5dfcd979cf73558979d7fbebf8c55eebe408e4cd2affbae483be6ee239d6de5dc1e9e00473931f" +
	"851b097cac5db24909c0f9f2d8d2f134e6f38e41b1c71bf152b6e4db072244246cf73e854f25d89c782a7d7410a68dcd3a868189d570d2dc696307459542ed86" +
	"331cd6b2a84b5b2807879c9d38372f647185db1125ba7c8301061523e6792f9fe5df07d14321b47f7d2469d81a3a4f9048be29a3669071af8ec8dd310810bfbf" +
	"813a06b46853834565865ddc43a71b8e78619a565a34451d5bdaa3ed71edc7e917ac9a2078d10bfa6c1e7f35d51839d9240cbc5133513cc1d2b4f795ccaa8186" +
	"0babe682a33cf16418c643eac1ca105f9959147a6d3d94de0b654fbeed902ca07d835cb599ba15096445c922495e76c2f07194bca1631d7e677076a589fffe35" +
	"1a49bcf38e6c948a0144c9178d93aea116f87ddfc8f25d491fb1129727e750cd2f422da1dee89a771534c643457b7b8baf172f7a6b9b09d633573f7ff14e15c4" +
	"526467d5af48824187c3ee0d33be490c95aa6e5243ec242ed77de99bd018334f5b78d407498eb66bb1279fa8b38b0ea690718376e325dee28e2f2cbacaa5bdec" +
	"9d652c56ad68f5cba77591af88e37ee8f8faa221fcbbbe474f407786af393889f444a1d915ae1a2f40aa70976f9486ac29d232a3e47609e9e8b631ffba8565f4" +
	"1128874946c9a838eb1b7cd8f516bbb1fb74fda0010996e64c9946531d88951253dcd9a3dd0746971e78e17c637c98bf930bb219cf7f75b0cb9355fb9e623009" +
	"e466d82c28f968d3feb385d9238e026cb8ed05600c6a027a3d6fec4bbb4b2ec2e715031ceded011dcdc4d3b9c456fc96dd0eea20b3df8ec912351993d9cbb01c" +
	"603147a2cf37d17df7fcd9dcd8556fa3104c813113152774b47158116a72c2c9c5ae37bba76ce12a8150d8f32ec29218a35f098448c0647e0b5ff98c71893f7b"

// buzhashTables is what all buzhash splitters of a factory share. It implements
// spec/chunker.md, section "Buzhash", whose cuts are those of borg 1.
type buzhashTables struct {
	spec Spec
	mask uint32 // a cut is made where these bits of the hash are zero
	// in is the value of a byte that comes into the window, out that of one which
	// leaves it.
	in, out [256]uint32
}

func newBuzhashTables(spec Spec, seed uint32) *buzhashTables {
	base, err := hex.DecodeString(buzhashBase)
	if err != nil {
		panic("chunker: the constant table of buzhash is no hexadecimal number")
	}
	t := &buzhashTables{spec: spec, mask: uint32(spec.Avg - 1)}
	for i := range t.in {
		t.in[i] = binary.BigEndian.Uint32(base[4*i:]) ^ seed
		t.out[i] = bits.RotateLeft32(t.in[i], spec.Window%32)
	}
	return t
}

// buzhashSplitter cuts before a window of which the low bits of the hash are zero.
type buzhashSplitter struct {
	tables  *buzhashTables
	scanned int    // places since the last cut that were looked at, and are no cuts
	hash    uint32 // of the window behind the last of these
}

func (s *buzhashSplitter) Min() int { return s.tables.spec.Min }
func (s *buzhashSplitter) Max() int { return s.tables.spec.Max }
func (s *buzhashSplitter) Reset()   { s.scanned, s.hash = 0, 0 }

func (s *buzhashSplitter) Cut(buf []byte, final bool) int {
	t := s.tables
	end := min(len(buf), t.spec.Max)
	// A byte has to follow the window of a cut.
	last := end - t.spec.Window - 1
	if s.scanned > last {
		// These are not the bytes of the last call and more behind them.
		s.Reset()
	}
	if last >= t.spec.Min {
		if s.scanned == 0 {
			s.scanned = t.spec.Min
			s.hash = t.sum(buf[t.spec.Min : t.spec.Min+t.spec.Window])
			if s.hash&t.mask == 0 {
				s.Reset()
				return t.spec.Min
			}
		}
		at, hash := t.scan(buf, s.scanned, last, s.hash)
		if hash&t.mask == 0 {
			s.Reset()
			return at
		}
		s.scanned, s.hash = at, hash
	}
	if end == t.spec.Max || final {
		s.Reset()
		return end
	}
	return 0
}

// sum returns the hash of a window alone.
func (t *buzhashTables) sum(window []byte) (h uint32) {
	for _, b := range window {
		h = bits.RotateLeft32(h, 1) ^ t.in[b]
	}
	return h
}

// scan moves the window on from at until its hash clears the masked bits or it
// begins at last.
func (t *buzhashTables) scan(buf []byte, at, last int, h uint32) (int, uint32) {
	leaving, coming := buf[at:last], buf[at+t.spec.Window:]
	coming = coming[:len(leaving)]
	for i, b := range leaving {
		h = bits.RotateLeft32(h, 1) ^ t.out[b] ^ t.in[coming[i]]
		if h&t.mask == 0 {
			return at + i + 1, h
		}
	}
	return last, h
}
