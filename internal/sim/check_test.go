package sim_test

import (
	"bytes"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/disk"
)

// askReceipt asks what became of some acknowledged chunk.
func (w *world) askReceipt() {
	c := w.clients[w.rng.IntN(len(w.clients))]
	if len(c.chunks) == 0 {
		return
	}
	w.checkReceipt(c.chunks[w.rng.IntN(len(c.chunks))], false)
}

// checkReceipt compares a receipt with the databases: promise 5.
func (w *world) checkReceipt(k *chunk, final bool) {
	if k.receipt == "" {
		return
	}
	rec, err := sluice.ParseReceipt(k.receipt)
	if err != nil {
		w.fail("promise 5", "%s: %v", k.id, err)
		return
	}
	st, err := w.proc.reader.Receipt(background, rec, 0)
	if err != nil {
		if final || !slices.ContainsFunc(shardNames, func(n string) bool { return w.dbs[n].down }) {
			w.fail("promise 5", "%s: %v", k.id, err)
		}
		return
	}
	if st.State == sluice.StateApplied && !k.applied {
		k.applied = true
		w.history.applied(k)
	}
	for _, gs := range st.Groups {
		w.checkGroup(k, &gs, final)
	}
}

// checkGroup judges one group of a receipt.
func (w *world) checkGroup(k *chunk, gs *sluice.GroupStatus, final bool) {
	rejected := false
	for i := range k.lines {
		l := &k.lines[i]
		if !k.taken[i] || !l.touches(gs.Group) {
			continue
		}
		p := w.partition(l.key)
		for _, d := range w.proc.list {
			if d.Group().Name != gs.Group || !d.has(p) || d.wentBack() {
				continue
			}
			here := d.state()
			rejected = rejected || w.rejectedBeside(here, k.at, l)
			if gs.State != sluice.StateApplied {
				continue
			}
			cur := d.link.db.durable[d.Group().ID]
			switch {
			case cur.Applied(p) < k.at:
				w.fail("promise 5", "the receipt of %s (commit %d) says applied for %s, and a crash of shard %s now would leave it at commit %d", k.id, k.at, gs.Group, d.ShardName(), cur.Applied(p))
			case here.parked[l.key] && w.parkedAt(d, l.key, k.at):
				w.fail("promise 5", "the receipt of %s (commit %d) says applied for %s, and its entry is parked", k.id, k.at, gs.Group)
			case here.rejected[l.name]:
				w.fail("promise 5", "the receipt of %s (commit %d) says applied for %s, and line %d is among the rejects", k.id, k.at, gs.Group, i)
			}
		}
	}
	switch {
	case gs.State == sluice.StateRejected && !rejected && w.eras == 0:
		w.fail("promise 5", "the receipt of %s (commit %d) says rejected for %s, and no line of it is among the rejects", k.id, k.at, gs.Group)
	case gs.State == sluice.StateQueued && final:
		w.fail("promise 5", "the receipt of %s (commit %d) says queued for %s after everything was applied", k.id, k.at, gs.Group)
	case gs.State == sluice.StateLost, gs.State == sluice.StateExpired:
		w.fail("promise 5", "the receipt of %s (commit %d) says %s for %s, and nobody accepted a gap", k.id, k.at, gs.State, gs.Group)
	}
}

// rejectedBeside tells whether a line of the same key and commit was rejected. A
// receipt names commit and keys, so it cannot tell two writes to one key in one
// commit apart: both say rejected when one of them was.
func (w *world) rejectedBeside(here *shardState, commit uint64, l *line) bool {
	for _, at := range w.truth[commit-1].lines {
		if other := at.get(); other.key == l.key && here.rejected[other.name] {
			return true
		}
	}
	return false
}

func (w *world) parkedAt(d *drain, key int64, commit uint64) bool {
	hash := sluice.KeyHash(d.Group().ID, keyBytes(w.schema, key))
	for _, k := range must(d.link.inner().ParkedKeys(background, d.Group().ID)) {
		if k.KeyHash == hash && k.Commit == commit {
			return true
		}
	}
	return false
}

// readOne reads the counter, at times with a receipt.
func (w *world) readOne() {
	q := sluice.ReadQuery{Table: "posts", Keys: [][]byte{keyBytes(w.schema, counterKey)}, Groups: []string{"metrics"}}
	rows, err := w.proc.reader.Read(background, q)
	if err != nil {
		return
	}
	n := int64(0)
	if text, ok := rows[0].Columns["likes"]; ok {
		n, _ = strconv.ParseInt(string(text), 10, 64)
	}
	w.history.read(n)
	if rows[0].StaleBy == 0 && w.skew == 0 {
		w.checkFresh(n)
	}
}

// checkFresh: a row that is said to be fresh shows every acknowledged write.
func (w *world) checkFresh(got int64) {
	p := w.partition(counterKey)
	for _, d := range w.proc.list {
		if d.Group().Name == "metrics" && d.has(p) && d.wentBack() {
			return
		}
	}
	should := int64(0)
	for _, c := range w.truth {
		for _, at := range c.lines {
			if l := at.get(); l.key == counterKey && !l.del {
				should += l.number("likes")
			}
		}
	}
	if got != should {
		w.fail("promise 7", "a read of the counter says it is not stale and gives %d, %d were acknowledged", got, should)
	}
}

// probeFlip flips a bit in a copy of the disk and opens that: the damage is
// found, or did no harm. Nothing of it is read as data (promise 1).
func (w *world) probeFlip() {
	if w.proc.committing || w.proc.gone {
		return
	}
	copied := w.disk.Kill(w.rng.Uint64())
	if d := w.defect; d != nil && d.disk != nil {
		copied.SetFault(d.disk)
	}
	name, off, ok := w.place(copied)
	if !ok {
		return
	}
	if err := copied.Flip(name, off, 1<<w.rng.IntN(8)); err != nil {
		return
	}
	j, err := disk.Open(disk.Options{Dir: "journal", FS: copied, SegmentBytes: w.profile.segment, BytesMax: w.profile.journal, Now: w.wall})
	w.say("a bit flips in a copy of %s at %d: %.80v", name, off, err)
	if err != nil {
		return
	}
	defer j.Close()
	if head := j.Head().Number; head != uint64(len(w.truth)) {
		w.fail("promise 1", "with one flipped bit in %s at %d the journal ends at commit %d of %d, and nobody is told", name, off, head, len(w.truth))
		return
	}
	for n := range uint64(len(w.truth)) {
		w.sameCommit(j, n+1, name, off)
	}
}

func (w *world) sameCommit(j *disk.Journal, n uint64, name string, off int64) {
	got, err := j.Read(n)
	var corrupt *journal.CorruptError
	var hole *journal.HoleError
	if errors.As(err, &corrupt) || errors.As(err, &hole) && !hole.Lost {
		return
	}
	want, wantErr := w.proc.disk.Read(n)
	if err != nil || wantErr != nil || !bytes.Equal(got.Body, want.Body) {
		w.fail("promise 1", "with one flipped bit in %s at %d commit %d is read as something else (%v, %v)", name, off, n, err, wantErr)
	}
}

// place draws a byte of the journal, most often one of the newest commits.
func (w *world) place(m interface {
	List(string) ([]string, error)
}) (string, int64, bool) {
	names := must(m.List("journal"))
	if len(names) == 0 {
		return "", 0, false
	}
	name := names[w.rng.IntN(len(names))]
	if w.chance(60) {
		for _, n := range names {
			if strings.HasSuffix(n, ".seg") {
				name = n // the last is the newest
			}
		}
	}
	name = path.Join("journal", name)
	f, err := w.disk.Open(name)
	if err != nil {
		return "", 0, false
	}
	defer f.Close()
	size := must(f.Size())
	if size == 0 {
		return "", 0, false
	}
	off := w.rng.Int64N(size)
	for range 20 { // there is more to find where something was written
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, off); err == nil && b[0] != 0 {
			break
		}
		off = w.rng.Int64N(size)
	}
	return name, off, true
}
