package disk

import (
	"errors"
	"iter"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
)

// Record is one commit as `sluice journal dump` shows it.
type Record struct {
	Number  uint64    `json:"commit"`
	Chain   uint64    `json:"chain"`
	Segment string    `json:"segment"`
	Offset  int64     `json:"offset"`
	Bytes   int       `json:"bytes"`
	Time    time.Time `json:"time"`
	Streams int       `json:"streams"`
	Entries int       `json:"entries"`
	Writes  uint64    `json:"writes"`
	Fault   string    `json:"fault,omitempty"` // why the body cannot be read
	Body    []byte    `json:"-"`               // valid until the next record
}

// errStop ends a walk that its caller has seen enough of.
var errStop = errors.New("stop")

// Inspect gives each whole commit in the order of the files, and then an error
// for each damaged place. The journal may be open in another process.
func Inspect(opts Options) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		s, err := newSurvey(opts)
		if err == nil {
			s.each = func(r record, path string, off int64) error {
				if !yield(describe(r, path, off), nil) {
					return errStop
				}
				return nil
			}
			err = s.explore()
		}
		if errors.Is(err, errStop) {
			return
		}
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, d := range s.damage {
			if !yield(Record{}, d.Err()) {
				return
			}
		}
	}
}

func describe(r record, path string, off int64) Record {
	out := Record{Number: r.number, Chain: r.chain, Segment: path, Offset: off, Bytes: len(r.body), Time: time.Unix(0, r.time).UTC(), Body: r.body}
	view, err := journal.DecodeBody(r.body)
	if err == nil {
		err = view.Streams(func(journal.Stream, uint64) { out.Streams++ })
	}
	if err == nil {
		err = view.Each(func(e *sluice.Entry) error {
			out.Entries++
			out.Writes += uint64(e.Writes)
			return nil
		})
	}
	if err != nil {
		out.Fault = err.Error()
	}
	return out
}

// Report is what Verify found.
type Report struct {
	ID          [16]byte
	Segments    int
	Commits     uint64 // whole ones
	First, Last uint64 // the oldest and the newest of them; 0: none
	Bytes       int64  // of the segment files
	Mark        uint64 // what the mark vouches for; 0: no mark
	EpochMax    uint64 // epochs up to here may have been handed out
	Holes       []Hole // trimmed, or accepted as lost
	// Torn is what a crash left behind the last commit. It is no damage: nobody
	// was told of it, and the next start cuts it.
	Torn   *Damage
	Damage []Damage // in the order of the files; none: the journal is whole
}

// Verify reads the whole journal and checks every commit, the chain, the holes
// against the checkpoint, and the mark. The journal may be open in another
// process. progress, when not nil, is told the bytes read of those there are.
func Verify(opts Options, progress func(done, total int64)) (Report, error) {
	s, err := newSurvey(opts)
	if err != nil {
		return Report{}, err
	}
	s.progress = progress
	if err := s.explore(); err != nil {
		return Report{}, err
	}
	return s.report(), nil
}

func (s *survey) report() Report {
	out := Report{ID: s.key.id, Segments: len(s.segs), Mark: s.vouch.number, EpochMax: s.epochMax, Holes: s.state.holes, Damage: s.damage}
	for _, seg := range s.segs {
		out.Bytes += seg.size
		for _, r := range seg.runs {
			if out.First == 0 {
				out.First = r.first
			}
			out.Last = max(out.Last, r.last)
			out.Commits += r.last + 1 - r.first
		}
	}
	if n := len(s.segs); n > 0 && s.segs[n-1].torn != nil && s.vouch.number <= s.end.number {
		out.Torn = s.segs[n-1].torn
	}
	return out
}
