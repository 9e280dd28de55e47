package filter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/bk-backup/bk/format"
)

// CommandOptions are how JudgeByCommand runs its command.
type CommandOptions struct {
	Env    []string  // environment, to which the file's is added
	Stderr io.Writer // where the command's messages go; nil: nowhere
}

// JudgeByCommand returns a Judge that runs a command for every file. The
// content comes on its standard input, which it need not read; BK_PATH, BK_TYPE,
// BK_SIZE, BK_MODE, BK_UID, BK_GID, BK_USER, BK_GROUP and BK_MTIME (seconds) are
// in its environment, where they are known. If it exits with 0 the file is
// dropped, with 1 it is kept; anything else is an error.
func JudgeByCommand(ctx context.Context, argv []string, opts CommandOptions) Judge {
	return func(e *format.Entry, content io.Reader) (bool, error) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(slices.Clone(opts.Env), fileEnv(e)...)
		cmd.Stdin = content
		cmd.Stderr = opts.Stderr
		cmd.WaitDelay = 10 * time.Second
		err := cmd.Run()
		var exit *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case errors.As(err, &exit) && exit.ExitCode() == 1:
			return false, nil
		case errors.As(err, &exit):
			return false, fmt.Errorf("command %q: %s (0 drops a file, 1 keeps it)", argv, exit)
		case err != nil:
			return false, fmt.Errorf("command %q: %w", argv, err)
		}
		return true, nil
	}
}

// fileEnv describes a file to a command.
func fileEnv(e *format.Entry) []string {
	env := []string{"BK_PATH=" + e.Path, "BK_TYPE=" + string(e.Type)}
	add := func(has format.Has, name, value string) {
		if e.Has&has != 0 {
			env = append(env, name+"="+value)
		}
	}
	add(format.HasSize, "BK_SIZE", strconv.FormatUint(e.Size, 10))
	add(format.HasMode, "BK_MODE", strconv.FormatUint(uint64(e.Mode), 8))
	add(format.HasUID, "BK_UID", strconv.FormatUint(uint64(e.UID), 10))
	add(format.HasGID, "BK_GID", strconv.FormatUint(uint64(e.GID), 10))
	add(format.HasMtime, "BK_MTIME", strconv.FormatInt(e.Mtime.Sec, 10))
	if e.User != "" {
		env = append(env, "BK_USER="+e.User)
	}
	if e.Group != "" {
		env = append(env, "BK_GROUP="+e.Group)
	}
	return slices.DeleteFunc(env, func(s string) bool { return slices.Contains([]byte(s), 0) })
}
