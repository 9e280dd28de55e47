package disk

import "github.com/bk-backup/bk/format"

// Other programs' snapshots often know no inode numbers, and copies no ctimes.
// Files are then compared without them, which the caller has to ask for. So that
// this is needed once and not for ever, what turns out to be unchanged is adopted:
// its entry goes out again with what the status says now, and the content that the
// parent has. Inode numbers and ctimes are informative, and so both entries equal.

// canAdopt reports whether this scan may adopt entries at all. Surveys, and streams
// for receivers that do not hold the parent, have their own ways.
func (o *ScanOptions) canAdopt() bool {
	return (o.IgnoreInode || o.IgnoreCtime) && o.Previous != nil && o.Survey == nil && !o.Flat && !o.ListingOnly
}

// adopts reports whether an unchanged file's previous entry lacks what later scans
// compare.
func (s *Scanner) adopts(prev *format.Entry) bool {
	const compared = format.HasInode | format.HasCtime
	return prev.Has&compared != compared && s.options.canAdopt()
}

// keepPrevious says of an item that it is equal to prev in everything.
func (r *reader) keepPrevious(it *item) {
	if r.adopts(it.prev) {
		it.adopt(it.prev, &r.memo)
	} else {
		it.same = true
	}
}

// adopt completes the item of a file that did not change since prev, which is not
// used any more then.
func (it *item) adopt(prev *format.Entry, owners *ownerMemo) {
	it.task = taskAdopt
	it.entry = format.Entry{
		Target: prev.Target, Xattrs: prev.Xattrs, Flags: prev.Flags, Extents: prev.Extents, Chunker: prev.Chunker, Extra: prev.Extra,
	}
	it.status.fill(&it.entry, it.path, owners)
	it.entry.Hardlink = prev.Hardlink
}

// stepAdopted hands out the content that the parent has at the same path.
func (s *Scanner) stepAdopted() (format.Record, error) {
	s.step, s.size = s.stepEOF, s.item.entry.Size
	if s.size == 0 {
		return nil, nil
	}
	return &format.CopyRange{Size: s.size}, nil
}
