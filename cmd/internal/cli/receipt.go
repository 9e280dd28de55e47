package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bk-backup/bk/repo"
)

// ReceiptFlag is the flag of programs that make snapshots.
type ReceiptFlag struct {
	Receipt string `placeholder:"FILE" help:"Append a receipt of the newest snapshot to FILE (- for standard output). Keep it away from the repository: bk-check --expect finds out later whether the storage hides the snapshot."`
}

// ReceiptFile is where a receipt goes. The zero value is nowhere.
type ReceiptFile struct{ out io.WriteCloser }

// OpenReceipt opens the file before anything is done, so that a receipt is not
// lost because it cannot be written.
func (app *App) OpenReceipt(f *ReceiptFlag) (ReceiptFile, error) {
	switch f.Receipt {
	case "":
		return ReceiptFile{}, nil
	case "-":
		return ReceiptFile{app.Stdout}, nil
	}
	out, err := os.OpenFile(f.Receipt, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return ReceiptFile{}, &Error{Op: "open --receipt", Err: err}
	}
	return ReceiptFile{out}, nil
}

// Write appends the receipt of the newest of some snapshots, which tells of
// those before it as well; of none it writes nothing. It closes the file.
func (f ReceiptFile) Write(r *repo.Repository, snaps []*repo.Snapshot) error {
	if f.out == nil {
		return nil
	}
	var newest *repo.Snapshot
	for _, s := range snaps {
		if newest == nil || s.Sequence > newest.Sequence {
			newest = s
		}
	}
	var err error
	if newest != nil {
		_, err = fmt.Fprintln(f.out, r.Receipt(newest))
	}
	if f.out != io.WriteCloser(os.Stdout) {
		err = errors.Join(err, f.out.Close())
	}
	if err != nil {
		return &Error{Op: "write --receipt; the snapshot is there", Err: err}
	}
	return nil
}

// ParseReceipts reads receipts: arg is one, or names a file with one on each
// line. Empty lines and what follows # do not count.
func ParseReceipts(arg string) ([]repo.Receipt, error) {
	if strings.HasPrefix(strings.ToLower(arg), "bk1-") {
		receipt, err := repo.ParseReceipt(arg)
		if err != nil {
			return nil, Usagef("--expect: %w", err)
		}
		return []repo.Receipt{receipt}, nil
	}
	f, err := os.Open(arg)
	if errors.Is(err, os.ErrNotExist) {
		return nil, Usagef("--expect: %q is neither a receipt, which begins with bk1-, nor a file that is there", arg)
	}
	if err != nil {
		return nil, &Error{Op: "read --expect", Err: err}
	}
	defer f.Close()
	var list []repo.Receipt
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if strings.TrimSpace(text) == "" {
			continue
		}
		receipt, err := repo.ParseReceipt(text)
		if err != nil {
			return nil, Usagef("--expect: line %d of %s: %w", n, arg, err)
		}
		list = append(list, receipt)
	}
	if err := lines.Err(); err != nil {
		return nil, &Error{Op: "read --expect " + arg, Err: err}
	}
	if len(list) == 0 {
		return nil, Usagef("--expect: there is no receipt in %s", arg)
	}
	return list, nil
}
