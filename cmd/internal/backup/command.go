package backup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/format"
	"github.com/bk-backup/bk/format/disk"
)

// scanCommand backs up the output of a command. The end of its output is an end
// of the file only if it exits with 0: otherwise reading fails, and with it the
// snapshot.
func (c *Backup) scanCommand(ctx context.Context, opts disk.ScanOptions, use func(format.Source) error) error {
	cmd := exec.CommandContext(ctx, c.Paths[0], c.Paths[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return &cli.Error{Op: "run " + c.Paths[0], Err: err}
	}
	if err := cmd.Start(); err != nil {
		return &cli.Error{Op: "run " + c.Paths[0], Err: err, Fix: "check the command; no snapshot was made"}
	}
	opts.Stdin = &commandOutput{cmd: cmd, read: out.Read, name: strings.Join(c.Paths, " ")}
	scanner, err := disk.Scan(ctx, opts)
	if err == nil {
		defer scanner.Close()
		err = use(scanner)
	}
	if err != nil && cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	return err
}

// commandOutput reads what a command writes, and at its end waits for it.
type commandOutput struct {
	cmd  *exec.Cmd
	read func([]byte) (int, error)
	name string
}

// Read implements io.Reader.
func (o *commandOutput) Read(p []byte) (int, error) {
	n, err := o.read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	if waitErr := o.cmd.Wait(); waitErr != nil {
		return 0, fmt.Errorf("the command %q failed, so no snapshot is made: %w", o.name, waitErr)
	}
	return 0, err
}
