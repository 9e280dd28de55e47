package format

import (
	"slices"
	"testing"
)

// TestFeatures has options say what a reader must know, in an order that a header
// may have.
func TestFeatures(t *testing.T) {
	has := func(ID, uint32) bool { return false }
	for name, c := range map[string]struct {
		opts   ExportOptions
		want   []Feature
		copies bool
	}{
		"none":         {ExportOptions{}, []Feature{FeatureZstd}, false},
		"plain":        {ExportOptions{Plain: true}, nil, false},
		"based":        {ExportOptions{Base: ID{1}, Plain: true}, []Feature{FeatureBase, FeatureCopy}, true},
		"no copies":    {ExportOptions{Base: ID{1}, NoCopy: true, Plain: true}, []Feature{FeatureBase}, false},
		"full":         {ExportOptions{Base: ID{1}, Copy: true, Full: true, Plain: true}, nil, false},
		"flat":         {ExportOptions{Base: ID{1}, Copy: true, Flat: true, HasChunk: has, Plain: true}, []Feature{FeatureFlat}, false},
		"copies":       {ExportOptions{Copy: true}, []Feature{FeatureCopy, FeatureZstd}, true},
		"names alone":  {ExportOptions{Held: true, Base: ID{1}, Copy: true}, []Feature{FeatureBase, FeatureHeld, FeatureZstd}, false},
		"what is held": {ExportOptions{HasChunk: has}, []Feature{FeatureHeld, FeatureZstd}, false},
		"what arrived": {ExportOptions{Arrived: func(ID, ID) bool { return false }}, []Feature{FeatureHeld, FeatureZstd}, false},
	} {
		if got := c.opts.Features(); !slices.Equal(got, c.want) || !slices.IsSorted(got) || c.opts.Copies() != c.copies {
			t.Errorf("%s: %v, copies %v", name, got, c.opts.Copies())
		}
	}
}
