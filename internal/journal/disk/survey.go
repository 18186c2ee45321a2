package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

// Damage is one place where the journal does not hold what was written.
type Damage struct {
	File   string
	Offset int64
	Got    string
	Want   string
	// First and Last are the commits that are lost by it; Last < First when it
	// is not known which, or none.
	First, Last uint64
}

// Err is the damage as an error.
func (d Damage) Err() *journal.CorruptError {
	return &journal.CorruptError{File: d.File, Offset: d.Offset, Got: d.Got, Want: d.Want}
}

// run is a stretch of commits in one file of which each continues the last.
type run struct {
	first, last   uint64
	before, after uint64 // chains
	off, end      int64
}

// surveyed is one segment file, read from end to end.
type surveyed struct {
	path   string
	first  uint64 // by its name
	bytes  int64  // by its header, or its size when that is damaged
	size   int64
	runs   []run
	damage []Damage
	torn   *Damage // bytes behind the last commit that are none
}

// survey is what stands on the disk, damage and all. It never writes.
type survey struct {
	opts     Options
	key      key
	segs     []surveyed
	state    checkpoint
	vouch    vouched
	epochMax uint64
	streams  *streamTable
	each     visit // may be nil
	progress func(done, total int64)
	done     int64
	total    int64

	damage []Damage
	gaps   []Hole // what is missing and in no checkpoint
	end    position
	forked *Damage // two files tell different histories
}

// visit is called for each whole commit, in the order of the files.
type visit func(r record, path string, off int64) error

// explore reads the whole journal. A running process may commit and trim
// meanwhile, so the order matters: what the mark vouches for is in a file that
// is listed after it, and a listed file that is gone by the end is in the
// checkpoint that is read then.
func (s *survey) explore() error {
	var err error
	if s.vouch, err = readMark(s.opts.FS, s.opts.Dir, &s.key); err != nil {
		return err
	}
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return err
	}
	if err := s.readState(); err != nil {
		return err
	}
	for _, first := range segmentFirsts(names) {
		s.total += s.opts.SegmentBytes
		if covers(s.state.holes, first, first) {
			s.total -= s.opts.SegmentBytes
		}
	}
	for _, first := range segmentFirsts(names) {
		if covers(s.state.holes, first, first) {
			continue
		}
		seg, err := s.segment(first)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.segs = append(s.segs, seg)
	}
	if err := s.forget(); err != nil {
		return err
	}
	s.judge()
	return nil
}

// forget leaves out the segments that were trimmed while the survey ran.
func (s *survey) forget() error {
	state, err := loadCheckpoint(s.opts.FS, s.opts.Dir)
	if errors.As(err, new(*journal.CorruptError)) {
		return nil // readState has noted it
	}
	if err != nil {
		return err
	}
	s.state.holes = state.holes
	s.segs = slices.DeleteFunc(s.segs, func(seg surveyed) bool { return covers(s.state.holes, seg.first, seg.first) })
	return nil
}

// readState reads the small files. A damaged one is damage, not an error.
func (s *survey) readState() error {
	var err error
	s.streams = newStreamTable()
	if s.state, err = loadCheckpoint(s.opts.FS, s.opts.Dir); err != nil {
		if s.noteDamage(err) != nil {
			return err
		}
		s.state = checkpoint{streams: newStreamTable()}
	}
	s.streams.merge(s.state.streams)
	s.epochMax, err = loadEpochMax(s.opts.FS, s.opts.Dir)
	return s.noteDamage(err)
}

// noteDamage takes err into the list when it is damage, and gives it back when not.
func (s *survey) noteDamage(err error) error {
	var c *journal.CorruptError
	if !errors.As(err, &c) {
		return err
	}
	s.damage = append(s.damage, Damage{File: c.File, Offset: c.Offset, Got: c.Got, Want: c.Want, First: 1})
	return nil
}

func (s *survey) segment(first uint64) (surveyed, error) {
	out := surveyed{path: filepath.Join(s.opts.Dir, segmentName(first)), first: first}
	f, err := s.opts.FS.Open(out.path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	w, err := newWindow(f, out.path)
	if err != nil {
		return out, err
	}
	h, bad, err := readSegmentHeader(f, s.key, first)
	if err != nil {
		return out, fmt.Errorf("%s: %w", out.path, err)
	}
	out.size, out.bytes = w.size, h.bytes
	p := position{first - 1, h.before, blockBytes, out.path}
	if bad != nil {
		out.bytes = w.size
		out.damage = append(out.damage, Damage{File: out.path, Got: bad.got, Want: bad.want, First: 1})
		if r, bad, err := w.record(&s.key, blockBytes); err == nil && bad == nil && r.number == first {
			p.chain = r.prev
		}
	}
	return out, s.runs(&out, w, p)
}

// runs reads a segment to its end and goes over what is damaged.
func (s *survey) runs(out *surveyed, w *window, p position) error {
	for {
		start := p
		end, bad, err := w.walk(&s.key, p, func(r record, off int64) error {
			s.count(off)
			s.touch(r)
			if s.each != nil {
				return s.each(r, out.path, off)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if end.number > start.number {
			out.runs = append(out.runs, run{start.number + 1, end.number, start.chain, end.chain, start.off, end.off})
		}
		if bad == nil {
			bad = faultf(fmt.Sprintf("commit %d", end.number+1), "zeros")
		}
		later, at, found, err := w.after(&s.key, end.off, end.number)
		if err != nil {
			return err
		}
		if !found {
			s.done += s.opts.SegmentBytes
			s.count(0)
			return out.tail(w, end, bad)
		}
		out.damage = append(out.damage, Damage{File: out.path, Offset: end.off, Got: bad.got, Want: bad.want, First: end.number + 1, Last: later.number - 1})
		p = position{later.number - 1, later.prev, at, out.path}
	}
}

func (out *surveyed) tail(w *window, end position, bad *fault) error {
	clean, err := w.zeros(end.off, w.size)
	if err != nil || clean {
		return err
	}
	out.torn = &Damage{File: out.path, Offset: end.off, Got: bad.got, Want: bad.want, First: end.number + 1}
	return nil
}

func (s *survey) count(off int64) {
	if s.progress != nil {
		s.progress(min(s.done+off, s.total), s.total)
	}
}

// touch remembers the streams of a commit. A body that cannot be read is
// somebody else's news: the checksum says it is what was written.
func (s *survey) touch(r record) {
	if view, err := journal.DecodeBody(r.body); err == nil {
		_ = view.Streams(func(st journal.Stream, writes uint64) { s.streams.touch(st, r.number, writes) })
	}
}

// judge puts the files together and compares them with checkpoint and mark.
func (s *survey) judge() {
	p := position{path: filepath.Join(s.opts.Dir, segmentName(1))}
	for i := range s.segs {
		seg := &s.segs[i]
		if seg.torn != nil && i < len(s.segs)-1 {
			seg.damage = append(seg.damage, *seg.torn)
		}
		s.damage = append(s.damage, seg.damage...)
		for _, r := range seg.runs {
			p = s.connect(p, seg, r)
		}
	}
	s.end = follow(s.state.holes, p, math.MaxUint64)
	s.judgeMark()
}

// connect adds a run of a segment to the history that ends at p.
func (s *survey) connect(p position, seg *surveyed, r run) position {
	p = follow(s.state.holes, p, r.first)
	end := position{r.last, r.after, r.end, seg.path}
	switch {
	case r.first == p.number+1 && r.before == p.chain:
	case r.last == p.number && r.after == p.chain:
		// An adopt that was interrupted left the same commits in two files.
	case r.first > p.number+1:
		note := fmt.Sprintf("commits %d to %d are in no file", p.number+1, r.first-1)
		if r.first == seg.first {
			s.damage = append(s.damage, Damage{File: p.path, Offset: p.off, Got: fmt.Sprintf("commit %d in %s next", r.first, seg.path),
				Want: fmt.Sprintf("commit %d", p.number+1), First: p.number + 1, Last: r.first - 1})
		} else if n := len(seg.damage); n > 0 {
			note = fmt.Sprintf("%s at offset %d: got %s, want %s", seg.path, seg.damage[n-1].Offset, seg.damage[n-1].Got, seg.damage[n-1].Want)
		}
		s.gaps = append(s.gaps, Hole{First: p.number + 1, Last: r.first - 1, Before: p.chain, After: r.before, Lost: true, Note: note})
	default:
		s.forked = &Damage{File: seg.path, Offset: r.off, Got: fmt.Sprintf("commit %d after chain %016x", r.first, r.before),
			Want: fmt.Sprintf("commit %d after chain %016x", p.number+1, p.chain), First: r.first}
		s.damage = append(s.damage, *s.forked)
	}
	return end
}

// judgeMark tells a torn end, which the next start cuts, from a lost one.
func (s *survey) judgeMark() {
	lost := s.vouch.number > s.end.number
	if n := len(s.segs); n > 0 && s.segs[n-1].torn != nil && lost {
		torn := *s.segs[n-1].torn
		torn.Last = s.vouch.number
		s.damage = append(s.damage, torn)
	} else if lost {
		s.damage = append(s.damage, Damage{File: s.end.path, Offset: s.end.off, Got: "the end of the journal",
			Want: fmt.Sprintf("commit %d, which the mark says was acknowledged", s.vouch.number), First: s.end.number + 1, Last: s.vouch.number})
	}
}

// newSurvey reads the journal's identity, from a segment when its file is lost.
func newSurvey(opts Options) (*survey, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &survey{opts: opts}
	k, err := loadIdentity(opts.FS, opts.Dir)
	if errors.Is(err, fs.ErrNotExist) || s.noteDamage(err) == nil && err != nil {
		return s, s.identityOfSegments(err)
	}
	s.key = k
	return s, err
}

func (s *survey) identityOfSegments(cause error) error {
	names, err := s.opts.FS.List(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, first := range segmentFirsts(names) {
		if h, ok := headerOf(s.opts.FS, filepath.Join(s.opts.Dir, segmentName(first))); ok {
			if errors.Is(cause, fs.ErrNotExist) {
				s.damage = append(s.damage, Damage{File: filepath.Join(s.opts.Dir, identityFile), Got: "no file", Want: "the identity of the segments beside it", First: 1})
			}
			s.key = h.key
			return nil
		}
	}
	return fmt.Errorf("no journal in %s: %w", s.opts.Dir, cause)
}

func headerOf(fsys vfs.FS, path string) (segmentHeader, bool) {
	f, err := fsys.Open(path)
	if err != nil {
		return segmentHeader{}, false
	}
	defer f.Close()
	b := make([]byte, segmentSumBytes)
	if _, err := f.ReadAt(b, 0); err != nil {
		return segmentHeader{}, false
	}
	h, bad, err := decodeSegmentHeader(b)
	return h, bad == nil && err == nil
}
