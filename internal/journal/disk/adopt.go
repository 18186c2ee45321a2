package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
)

// Seen is the highest commit and epoch that any shard says it has. A shard that
// is ahead of the journal shows a loss that the journal itself cannot.
type Seen struct {
	Commit uint64
	Epoch  uint64
}

// Adopted is what Adopt did.
type Adopted struct {
	Last  uint64   // the newest commit that was kept
	Next  uint64   // number of the next commit
	Epoch uint64   // the next epoch
	Gaps  []Hole   // what was accepted as lost, now
	Aside []string // copies of damaged files, kept for people
}

// damagedSuffix marks the copy of a damaged file.
const damagedSuffix = ".damaged"

// Adopt goes on after a loss: it keeps every whole commit, records what is
// missing as accepted, and raises the epoch to the next multiple of 2^32. When
// the end of the journal is lost, commits go on at the next multiple of 2^32
// too, so that no (commit, ordinal) is ever given twice. It runs only when
// somebody asks for it, and never while the journal is open. Interrupted, it is
// run again.
func Adopt(opts Options, seen Seen) (Adopted, error) {
	s, err := newSurvey(opts)
	if err != nil {
		return Adopted{}, err
	}
	lock, err := takeLock(s.opts)
	if err != nil {
		return Adopted{}, err
	}
	out, err := s.adopt(seen)
	return out, errors.Join(err, lock.Close())
}

func (s *survey) adopt(seen Seen) (Adopted, error) {
	var out Adopted
	if err := s.explore(); err != nil {
		return out, err
	}
	if s.forked != nil {
		return out, fmt.Errorf("two files tell different histories, and only a person can say which is right: move one of them away and run adopt again: %w", s.forked.Err())
	}
	out.Last, out.Next, out.Gaps = s.end.number, s.end.number+1, s.gaps
	if lost := max(seen.Commit, s.vouch.number); lost > s.end.number {
		out.Next = nextEra(lost)
		out.Gaps = append(out.Gaps, Hole{First: s.end.number + 1, Last: out.Next - 1, Before: s.end.chain, After: s.end.chain, Lost: true,
			Note: fmt.Sprintf("the journal ends at commit %d, and commit %d was acknowledged", s.end.number, lost)})
	}
	// The epoch goes first, because raising it harms nothing, and the
	// checkpoint after the files, because it is what makes the loss accepted.
	// The mark goes last: without it a start would cut the lost end silently.
	out.Epoch = nextEra(max(seen.Epoch, s.epochMax))
	if err := replaceFile(s.opts.FS, s.opts.Dir, epochFile, appendU64(nil, out.Epoch-1)); err != nil {
		return out, err
	}
	if err := s.restoreIdentity(); err != nil {
		return out, err
	}
	for i := range s.segs {
		aside, err := s.rebuild(&s.segs[i])
		if err != nil {
			return out, fmt.Errorf("adopt %s: %w", s.segs[i].path, err)
		}
		out.Aside = append(out.Aside, aside...)
	}
	if err := s.accept(out.Gaps); err != nil {
		return out, err
	}
	return out, s.renewMark()
}

// restoreIdentity writes the identity file again when it was lost.
func (s *survey) restoreIdentity() error {
	if _, err := loadIdentity(s.opts.FS, s.opts.Dir); err == nil {
		return nil
	}
	data := appendU64(slices.Clone(s.key.id[:]), s.key.salt)
	return replaceFile(s.opts.FS, s.opts.Dir, identityFile, appendU64(data, uint64(s.opts.Now().UnixNano())))
}

// rebuild writes the whole commits of a damaged file into files of their own:
// the holes between them are then holes between segments, which a start knows.
func (s *survey) rebuild(seg *surveyed) (aside []string, err error) {
	lostEnd := seg.torn != nil && s.vouch.number > s.end.number
	if len(seg.damage) == 0 && !lostEnd {
		return nil, nil
	}
	f, err := s.opts.FS.Open(seg.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	kept := seg.path + damagedSuffix
	if err := s.write(kept, nil, io.NewSectionReader(f, 0, seg.size)); err != nil {
		return nil, err
	}
	// The index goes before the file it describes: a start would believe it.
	if err := errors.Join(s.remove(indexName(seg.first)), s.opts.FS.SyncDir(s.opts.Dir)); err != nil {
		return nil, err
	}
	// Later runs first: until the damaged file itself is replaced, nothing is
	// lost by stopping here.
	slices.SortFunc(seg.runs, func(a, b run) int { return cmp.Compare(b.first, a.first) })
	for _, r := range seg.runs {
		h := segmentHeader{key: s.key, first: r.first, before: r.before, created: s.opts.Now(), bytes: max(seg.bytes, r.end-r.off+blockBytes)}
		path := filepath.Join(s.opts.Dir, segmentName(r.first))
		if err := s.write(path, &h, io.NewSectionReader(f, r.off, r.end-r.off)); err != nil {
			return nil, err
		}
	}
	if n := len(seg.runs); n == 0 || seg.runs[n-1].first != seg.first {
		err = s.remove(segmentName(seg.first))
	}
	return []string{kept}, errors.Join(err, s.opts.FS.SyncDir(s.opts.Dir))
}

func (s *survey) remove(name string) error {
	err := s.opts.FS.Remove(filepath.Join(s.opts.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// write makes a file of what from holds, behind a header when there is one, and
// puts it in place.
func (s *survey) write(path string, h *segmentHeader, from io.Reader) error {
	f, err := s.opts.FS.Create(path + tempSuffix)
	if err != nil {
		return err
	}
	to := io.NewOffsetWriter(f, 0)
	if h != nil {
		if err = f.Allocate(h.bytes); err == nil {
			_, err = to.Write(h.encode())
		}
	}
	if err == nil {
		_, err = io.CopyBuffer(struct{ io.Writer }{to}, from, make([]byte, windowBytes))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.opts.FS.Rename(path+tempSuffix, path); err != nil {
		return err
	}
	return s.opts.FS.SyncDir(s.opts.Dir)
}

// accept records the gaps. Which streams had entries in them is not known, so
// every stream is said to have lost up to their end: a shard that is behind
// stops and asks, instead of going over the gap silently.
func (s *survey) accept(gaps []Hole) error {
	state := checkpoint{streams: newStreamTable(), holes: s.state.holes}
	state.streams.merge(s.streams)
	known := state.streams.all()
	for _, gap := range gaps {
		gap.Time = s.opts.Now().Unix()
		state.holes = addHole(state.holes, gap)
		for st := range known {
			at := state.streams.at(st)
			at.Removed = max(at.Removed, gap.Last)
		}
	}
	return replaceFile(s.opts.FS, s.opts.Dir, checkpointFile, state.encode())
}

// renewMark starts the mark anew: an old slot may vouch for what is lost.
func (s *survey) renewMark() error {
	if err := s.remove(markFile); err != nil {
		return err
	}
	f, err := openMark(s.opts.FS, s.opts.Dir)
	if err != nil {
		return err
	}
	m := mark{file: f}
	if s.end.number > 0 {
		err = m.write(&s.key, s.end.number, s.end.chain)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
