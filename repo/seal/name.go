package seal

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Name is the name of an object, taken apart (spec/repository.md, 2).
type Name struct {
	// Kind says which of the fields below count. A parsed name of a pack has
	// KindDataPack: names do not tell data packs from meta packs.
	Kind       Kind
	Number     uint64    // config, client chunk, snapshot, plan, forget, partial, damage
	Credential [16]byte  // credential
	Client     ClientID  // client chunk, snapshot, session, forget, partial, damage
	Session    SessionID // snapshot, session, forget, partial, damage
	// Resealed is the epoch under which a snapshot or forget object was sealed
	// again (spec/repository.md, 11.2); 0 as long as it was not.
	Resealed uint32
	Sum      [32]byte // pack, index: SHA-256 of the object
}

// Dir returns the prefix, "/" included, below which all objects of a kind lie.
func (k Kind) Dir() string {
	switch k {
	case KindConfig:
		return "config/"
	case KindCredential:
		return "credentials/"
	case KindClient:
		return "clients/"
	case KindDataPack, KindMetaPack:
		return "packs/"
	case KindIndex:
		return "index/"
	case KindSnapshot:
		return "snapshots/"
	case KindSession:
		return "sessions/"
	case KindPlan:
		return "condemned/"
	case KindForget:
		return "forgets/"
	case KindPartial:
		return "partial/"
	case KindDamage:
		return "damaged/"
	}
	return ""
}

// String returns the name as storage has it.
func (n Name) String() string {
	dir := n.Kind.Dir()
	switch n.Kind {
	case KindConfig, KindPlan:
		return dir + strconv.FormatUint(n.Number, 10)
	case KindCredential:
		return dir + hex.EncodeToString(n.Credential[:])
	case KindClient:
		return fmt.Sprintf("%s%x/%d", dir, n.Client[:], n.Number)
	case KindDataPack, KindMetaPack:
		return fmt.Sprintf("%s%x/%x", dir, n.Sum[:1], n.Sum[:])
	case KindIndex:
		return dir + hex.EncodeToString(n.Sum[:])
	case KindSession:
		return fmt.Sprintf("%s%x/%x", dir, n.Client[:], n.Session[:])
	case KindSnapshot, KindForget, KindPartial, KindDamage:
		name := fmt.Sprintf("%s%x/%x-%d", dir, n.Client[:], n.Session[:], n.Number)
		if n.Resealed > 0 {
			name += "-" + strconv.FormatUint(uint64(n.Resealed), 10)
		}
		return name
	}
	return n.Kind.String()
}

// ParseName takes a name apart, and returns false if no object of a repository
// can have it: objects with other names are ignored.
func ParseName(s string) (Name, bool) {
	dir, rest, _ := strings.Cut(s, "/")
	var n Name
	for k := KindConfig; k <= KindDamage; k++ {
		if k.Dir() == dir+"/" {
			n.Kind = k
			break
		}
	}
	ok := false
	switch n.Kind {
	case KindConfig, KindPlan:
		ok = parseNumber(&n.Number, rest)
	case KindCredential:
		ok = parseHex(n.Credential[:], rest)
	case KindClient:
		client, number, _ := strings.Cut(rest, "/")
		ok = parseHex(n.Client[:], client) && parseNumber(&n.Number, number)
	case KindDataPack:
		prefix, sum, _ := strings.Cut(rest, "/")
		ok = parseHex(n.Sum[:], sum) && prefix == sum[:2]
	case KindIndex:
		ok = parseHex(n.Sum[:], rest)
	case KindSession:
		client, session, _ := strings.Cut(rest, "/")
		ok = parseHex(n.Client[:], client) && parseHex(n.Session[:], session)
	case KindSnapshot, KindForget, KindPartial, KindDamage:
		client, rest, _ := strings.Cut(rest, "/")
		session, number, _ := strings.Cut(rest, "-")
		number, epoch, resealed := strings.Cut(number, "-")
		ok = parseHex(n.Client[:], client) && parseHex(n.Session[:], session) && parseNumber(&n.Number, number) &&
			(!resealed || n.Kind != KindPartial && parseEpoch(&n.Resealed, epoch))
	}
	if !ok {
		return Name{}, false
	}
	return n, true
}

// parseHex fills dst from exactly as many lower-case digits as it takes.
func parseHex(dst []byte, s string) bool {
	if len(s) != 2*len(dst) || strings.ToLower(s) != s {
		return false
	}
	_, err := hex.Decode(dst, []byte(s))
	return err == nil
}

// parseEpoch reads the epoch of an object that was sealed again: there was one
// before it.
func parseEpoch(dst *uint32, s string) bool {
	var n uint64
	ok := parseNumber(&n, s) && n >= 2 && n <= math.MaxUint32
	*dst = uint32(n)
	return ok
}

// parseNumber reads a decimal number in its only spelling.
func parseNumber(dst *uint64, s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	*dst = n
	return err == nil && strconv.FormatUint(n, 10) == s
}
