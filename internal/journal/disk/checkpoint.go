package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"sluice.dev/sluice/internal/vfs"
)

// Hole is a run of commits that the journal no longer holds: trimmed (J5), or
// lost and accepted by Adopt.
type Hole struct {
	First, Last uint64
	Before      uint64 // chain of the commit before First
	After       uint64 // chain that the commit behind Last continues from
	Lost        bool
	Time        int64  // unix seconds when it came to be
	Note        string // what was found, for a lost one
}

// checkpoint is what must outlive the segments: what each stream came to, and
// which commits are missing rightly. It is durable before a segment goes, so a
// missing file that it does not name is damage.
type checkpoint struct {
	streams *streamTable
	holes   []Hole
}

func (c *checkpoint) encode() []byte {
	b := c.streams.append(nil)
	b = appendU32(b, uint32(len(c.holes)))
	for _, h := range c.holes {
		for _, n := range []uint64{h.First, h.Last, h.Before, h.After} {
			b = appendU64(b, n)
		}
		lost := byte(0)
		if h.Lost {
			lost = 1
		}
		b = append(b, lost)
		b = appendU64(b, uint64(h.Time))
		b = appendText(b, h.Note)
	}
	return b
}

const holeBytes = 4*8 + 1 + 8 + 4

// loadCheckpoint gives an empty one when none was ever saved.
func loadCheckpoint(fsys vfs.FS, dir string) (checkpoint, error) {
	c := checkpoint{streams: newStreamTable()}
	data, err := readFile(fsys, dir, checkpointFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	d := decoder{data: data}
	c.streams = d.streams()
	for range d.count(holeBytes) {
		h := Hole{First: d.u64(), Last: d.u64(), Before: d.u64(), After: d.u64()}
		h.Lost = d.u8() != 0
		h.Time = int64(d.u64())
		h.Note = d.text()
		c.holes = append(c.holes, h)
	}
	if d.bad || len(d.data) > 0 {
		return c, corrupt(filepath.Join(dir, checkpointFile), savedHeaderBytes, faultf("a checkpoint", "%d bytes that are none", len(data)))
	}
	return c, nil
}

// addHole puts h in its place. Trimmed neighbours become one, so the list stays
// as short as that of the segments.
func addHole(holes []Hole, h Hole) []Hole {
	out := append(slices.Clone(holes), h)
	slices.SortFunc(out, func(a, b Hole) int { return cmp.Compare(a.First, b.First) })
	merged := out[:1]
	for _, next := range out[1:] {
		last := &merged[len(merged)-1]
		if last.Last+1 == next.First && !last.Lost && !next.Lost && last.After == next.Before {
			last.Last, last.After, last.Time = next.Last, next.After, next.Time
			continue
		}
		merged = append(merged, next)
	}
	return merged
}

// covers says whether a trimmed hole holds first..last.
func covers(holes []Hole, first, last uint64) bool {
	return slices.ContainsFunc(holes, func(h Hole) bool { return !h.Lost && h.First <= first && last <= h.Last })
}

// Remove implements journal.Journal. A crash in the middle leaves the segment,
// or a checkpoint that says it is gone, and the next start finishes the work.
func (j *Journal) Remove(first uint64) error {
	j.removing.Lock()
	defer j.removing.Unlock()
	seg, state, err := j.without(first)
	if err != nil {
		return err
	}
	if err := j.save(checkpointFile, state.encode()); err != nil {
		return err
	}
	j.mu.Lock()
	j.segs = slices.DeleteFunc(slices.Clone(j.segs), func(s *segment) bool { return s == seg })
	j.holes = state.holes
	for s, last := range seg.streams {
		st := j.streams.at(s)
		st.Removed = max(st.Removed, last)
	}
	j.bytes -= seg.bytes
	j.mu.Unlock()
	if err := errors.Join(seg.drop(), removeSegment(j.opts.FS, j.opts.Dir, first)); err != nil {
		return fmt.Errorf("remove segment %s: %w", seg.path, err)
	}
	return nil
}

// without is the checkpoint as it is to be when the segment is gone.
func (j *Journal) without(first uint64) (*segment, checkpoint, error) {
	var c checkpoint
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.err != nil {
		return nil, c, j.err
	}
	i := slices.IndexFunc(j.segs, func(s *segment) bool { return s.first == first })
	if i < 0 || j.segs[i].sealed == 0 {
		return nil, c, fmt.Errorf("journal: no sealed segment starts at commit %d", first)
	}
	seg := j.segs[i]
	c.streams = newStreamTable()
	c.streams.merge(j.streams)
	for s, last := range seg.streams {
		st := c.streams.at(s)
		st.Removed = max(st.Removed, last)
	}
	c.holes = addHole(j.holes, Hole{First: seg.first, Last: seg.last, Before: seg.before, After: seg.after, Time: j.opts.Now().Unix()})
	return seg, c, nil
}

// removeSegment removes the files of a segment that the checkpoint says is gone.
func removeSegment(fsys vfs.FS, dir string, first uint64) error {
	var errs []error
	for _, name := range []string{segmentName(first), indexName(first)} {
		if err := fsys.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// follow goes over the holes that continue p, up to number limit, and gives
// where the next commit has to stand.
func follow(holes []Hole, p position, limit uint64) position {
	for _, h := range holes {
		if h.First == p.number+1 && h.Before == p.chain && h.Last < limit {
			p.number, p.chain = h.Last, h.After
		}
	}
	return p
}
