package sim_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/vfs"
)

// defect is a mistake, planted from outside: around a contract that a part of
// the process works with, so that no production code knows of it.
type defect struct {
	name      string
	profile   func(*profile)                                       // makes the schedule that shows it likelier
	journal   func(*process) journal.Journal                       // the journal as the process sees it
	opened    func(p *process, tail []byte)                        // after recovery; tail is the newest segment as it was
	drain     func(*process, *link, *schema.Group) journal.Journal // the journal as a drainer sees it
	shard     func(*process, *link) store.Shard                    // the shard as a drainer sees it
	server    func(store.Shard) store.Shard                        // the shard behind the network
	disk      func(vfs.Op) error                                   // between journal and disk
	identity  func(*sluice.Chunk)                                  // of a chunk
	trim      func(*process) error                                 // instead of the trimmer's step
	forgetful bool                                                 // identities are not remembered over a restart
}

// tail is the newest segment as the disk holds it, before recovery touches it.
func (w *world) tail() []byte {
	if w.defect == nil || w.defect.opened == nil {
		return nil
	}
	names, err := w.disk.List("journal")
	if err != nil {
		return nil
	}
	newest := ""
	for _, n := range names {
		if strings.HasSuffix(n, ".seg") {
			newest = n
		}
	}
	f, err := w.disk.Open("journal/" + newest)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, must(f.Size())))
	return b
}

// tornBody finds the record behind the last whole commit, whatever its checksum
// says: offsets as in docs/journal-format.md.
func tornBody(tail []byte, number uint64) []byte {
	for off := 0; off+64 <= len(tail); off += 4096 {
		r := tail[off:]
		n := int(binary.LittleEndian.Uint32(r[48:]))
		if string(r[:4]) == "SLcm" && binary.LittleEndian.Uint64(r[24:]) == number && n > 0 && 64+n <= len(r) {
			return r[64 : 64+n]
		}
	}
	return nil
}

// earlyTail makes a commit readable before its sync (J2 left out).
type earlyTail struct {
	journal.Journal
	p *process
}

func (j *earlyTail) Append(body []byte) (journal.Commit, error) {
	w := j.p.w
	w.unsure, w.io.skipSync = true, true
	c, err := j.p.disk.Append(body)
	w.io.skipSync = false
	if err != nil {
		return c, err
	}
	if w.wait(j.p, "a sync of commit %d", c.Number); j.p.gone {
		return c, vfs.ErrCrashed
	}
	segments := j.Segments()
	f, err := w.disk.OpenRW(segmentFile(segments[len(segments)-1].First))
	if err != nil {
		return c, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return c, err
	}
	w.unsure = false
	w.durable(c)
	return c, nil
}

// shardEpochs takes epochs from the shard instead of the journal's counter.
type shardEpochs struct {
	journal.Journal
	l *link
	g *schema.Group
}

func (j *shardEpochs) NextEpoch() (uint64, error) {
	for _, c := range must(j.l.db.open(j.l.o).Cursors(background)) {
		if c.Group == j.g.ID {
			return c.Epoch + 1, nil
		}
	}
	return 1, nil
}

// lastBody remembers what was about to be written.
type lastBody struct {
	journal.Journal
	body *[]byte
}

func (j *lastBody) Append(body []byte) (journal.Commit, error) {
	*j.body = append([]byte(nil), body...)
	return j.Journal.Append(body)
}

// half is a commit with the entries of the lower partitions only.
func half(j journal.Journal, data []byte) []byte {
	return rewrite(j, data, func(list []sluice.Entry) []sluice.Entry {
		return slices.DeleteFunc(list, func(e sluice.Entry) bool { return e.Partition() >= sluice.Partitions/2 })
	})
}

// rewrite encodes a commit anew with other entries.
func rewrite(j journal.Journal, data []byte, change func([]sluice.Entry) []sluice.Entry) []byte {
	body, err := journal.DecodeBody(data)
	if err != nil {
		return nil
	}
	h := journal.Header{Time: body.Time, Wall: body.Wall, Notes: body.Notes()}
	body.Identities(func(r []byte) { h.Identities = append(h.Identities, r) })
	var list []sluice.Entry
	_ = body.Each(func(e *sluice.Entry) error {
		list = append(list, keepEntries([]sluice.Entry{*e})...)
		return nil
	})
	e := journal.Encoder{Cumulate: func(s journal.Stream, writes uint64) uint64 { return j.Stream(s).Writes + writes }}
	e.Begin(h)
	for _, en := range change(list) {
		e.Entry(&en)
	}
	return e.Finish()
}

// wrapAround folds sums that overflow into one.
type wrapAround struct{ journal.Journal }

func (j *wrapAround) Append(body []byte) (journal.Commit, error) {
	return j.Journal.Append(rewrite(j.Journal, body, func(list []sluice.Entry) []sluice.Entry {
		var out []sluice.Entry
		for _, e := range list {
			if n := len(out); n > 0 && sameSum(&out[n-1], &e) {
				out[n-1].Cells[0].Value.Num += e.Cells[0].Value.Num
				out[n-1].Writes += e.Writes
				continue
			}
			out = append(out, e)
		}
		return out
	}))
}

// sameSum tells that two entries only add to the same column of the same row.
func sameSum(a, b *sluice.Entry) bool {
	return a.Group == b.Group && bytes.Equal(a.Key, b.Key) && len(a.Cells) == 1 && len(b.Cells) == 1 &&
		a.Cells[0].Column == b.Cells[0].Column && a.Cells[0].Value.Kind == sluice.Int64 && b.Cells[0].Value.Kind == sluice.Int64
}
