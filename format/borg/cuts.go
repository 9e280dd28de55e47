package borg

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bk-backup/bk/format/chunker"
)

// ErrCuts is in the error of Repository.Cuts for files that were cut in a way
// that no splitter here has.
var ErrCuts = errors.New("this way of cutting files is not known")

// Cuts returns how borg cuts files in the repository, as its newest archive says,
// and the seed that it does so with (spec/chunker.md, "Buzhash"). Archives whose
// chunks bk-import took over as they came do not say it; where no other does, it
// is what borg does if nothing else is asked for. The seed is a secret.
func (r *Repository) Cuts(ctx context.Context) (spec chunker.Spec, seed uint32, err error) {
	list, _, err := r.list(ctx)
	if err != nil {
		return chunker.Spec{}, 0, err
	}
	spec = chunker.BorgBuzhash
	for _, a := range slices.Backward(list) {
		if len(a.params) == 0 || slices.Equal(a.params, foreignParams) {
			continue
		}
		if spec, err = specOf(a.params); err != nil {
			return chunker.Spec{}, 0, fmt.Errorf("archive %q of %s was made with --chunker-params %v: %w: %w", a.name, r, a.params, ErrCuts, err)
		}
		break
	}
	return spec, uint32(r.keys.chunkSeed), nil
}

// specOf names the splitter of an archive's parameters: a method and its numbers,
// or those of buzhash alone, as before borg 1.2.
func specOf(params []any) (spec chunker.Spec, err error) {
	method, named := params[0].(string)
	if named {
		params = params[1:]
	}
	numbers := make([]int, len(params))
	for i, p := range params {
		n, ok := p.(uint64)
		if !ok || n > chunker.SizeMax {
			return spec, fmt.Errorf("%v cannot be", p)
		}
		numbers[i] = int(n)
	}
	switch {
	case method == "fixed" && (len(numbers) == 1 || len(numbers) == 2 && numbers[1] == 0):
		spec = chunker.Spec{Method: chunker.Fixed, Min: numbers[0], Avg: numbers[0], Max: numbers[0]}
	case (method == "buzhash" || !named) && len(numbers) == 4 && max(numbers[0], numbers[1], numbers[2]) < 31:
		spec = chunker.Spec{Method: chunker.Buzhash, Min: 1 << numbers[0], Max: 1 << numbers[1], Avg: 1 << numbers[2], Window: numbers[3]}
	default:
		return spec, errors.New("it is neither buzhash nor blocks of one size")
	}
	return spec, spec.Validate()
}
