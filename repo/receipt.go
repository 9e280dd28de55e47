package repo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Receipt says that a snapshot was committed. It is kept away from storage, and
// is short enough to be written down: whoever has it notices later if storage
// hides the snapshot (spec/repository.md, section 10). It is no secret, and
// gives no access.
type Receipt struct {
	Repository [4]byte  // the first of the repository's id
	Client     [4]byte  // the first of the client's id
	Sequence   uint64   // of the snapshot
	ID         [10]byte // the first of the snapshot's id
}

// ErrReceipt says that a text is not a receipt, or was copied with a mistake.
var ErrReceipt = errors.New("this is not a receipt")

const (
	receiptMagic    = "bk1"
	receiptSumBytes = 2
)

// Receipt returns the receipt of a snapshot.
func (r *Repository) Receipt(s *Snapshot) Receipt {
	repository := r.keys.Repository()
	return Receipt{[4]byte(repository[:]), [4]byte(s.Client[:]), s.Sequence, [10]byte(s.ID[:])}
}

// String returns the receipt as people keep it.
func (r Receipt) String() string {
	text := fmt.Sprintf("%s-%x-%x-%d-%x", receiptMagic, r.Repository, r.Client, r.Sequence, r.ID)
	return text + "-" + receiptSum(text)
}

// receiptSum is what tells a receipt from one with a mistake.
func receiptSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:receiptSumBytes])
}

// ParseReceipt reads what String returns. Case does not matter, nor does space
// around it. It fails with ErrReceipt.
func ParseReceipt(text string) (r Receipt, err error) {
	text = strings.ToLower(strings.TrimSpace(text))
	words := strings.Split(text, "-")
	if len(words) != 6 || words[0] != receiptMagic {
		return r, fmt.Errorf("%.100q: %w: one looks like %s", text, ErrReceipt, Receipt{Sequence: 7})
	}
	r.Sequence, err = strconv.ParseUint(words[3], 10, 64)
	for i, dst := range map[int][]byte{1: r.Repository[:], 2: r.Client[:], 4: r.ID[:]} {
		if b, hexErr := hex.DecodeString(words[i]); hexErr != nil || len(b) != len(dst) {
			err = errors.Join(err, fmt.Errorf("its part %d does not have %d digits", i+1, 2*len(dst)))
		} else {
			copy(dst, b)
		}
	}
	if err != nil || r.String() != text {
		return Receipt{}, fmt.Errorf("%.100q: %w: it was not copied exactly", text, ErrReceipt)
	}
	return r, nil
}

// findReceipt looks for the snapshot of a receipt. It fails with ErrRolledBack
// if that is neither there nor forgotten.
func (r *Repository) findReceipt(receipt Receipt, list []*Snapshot, gone *forgottenSet) error {
	repository, client := r.keys.Repository(), r.keys.Client()
	switch {
	case !bytes.HasPrefix(repository[:], receipt.Repository[:]):
		return fmt.Errorf("the receipt %s is of another repository, whose id begins with %x", receipt, receipt.Repository)
	case !bytes.HasPrefix(client[:], receipt.Client[:]):
		return fmt.Errorf("the receipt %s is of another client, whose id begins with %x", receipt, receipt.Client)
	}
	for _, s := range list {
		if bytes.HasPrefix(s.ID[:], receipt.ID[:]) && s.Sequence == receipt.Sequence {
			return nil
		}
	}
	for id := range gone.ids {
		if bytes.HasPrefix(id[:], receipt.ID[:]) {
			return nil
		}
	}
	return fmt.Errorf("the snapshot %x of the receipt %s: %w%s", receipt.ID, receipt, ErrRolledBack, gone.note())
}
