package dedup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

const (
	keysPrefix      = "keys-"
	producersPrefix = "producers-"
	windowParts     = 8 // files are merged within parts of the window, so that they can leave whole
	mergeFilesMin   = 4
)

// file is an open file of random keys.
type file struct {
	fileInfo
	*sorted
	io.Closer
}

// Open opens the table in o.Dir, or makes an empty one. What was in memory at
// the last stop is missing until the commits after Through are replayed.
func Open(o Options) (*Table, error) {
	o.setDefaults()
	t := &Table{
		o:         o,
		dir:       &dir{path: o.Dir, fs: o.FS},
		inFlight:  make(map[ident]chan struct{}),
		recent:    newRecent(),
		producers: producers{byID: make(map[uint64]*producer)},
		manifest:  manifest{NextProducer: 1, NextFile: 1},
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, err
	}
	if err := t.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open remembered identities: %w", err), t.Close())
	}
	return t, nil
}

func (t *Table) load() error {
	m := &t.manifest
	if err := t.dir.readValue(manifestName, m); err != nil {
		return err
	}
	t.now = m.Now
	keep := map[string]bool{m.Producers: true}
	for _, info := range m.Files {
		s, f, err := t.dir.open(info.Name)
		if err != nil {
			return err
		}
		t.files = append(t.files, &file{info, s, f})
		keep[info.Name] = true
	}
	t.count()
	if err := t.loadProducers(); err != nil {
		return err
	}
	return t.dir.clean(keep)
}

func (t *Table) loadProducers() error {
	ps := &t.producers
	limit, err := t.dir.readReservation()
	if err != nil {
		return err
	}
	// Between the two: issued perhaps, since the last checkpoint. See IssueProducer.
	for id := t.manifest.NextProducer; id < limit; id++ {
		ps.byID[id] = &producer{lowest: 1, used: t.now}
	}
	ps.next = max(limit, t.manifest.NextProducer)
	ps.limit = ps.next
	if t.manifest.Producers == "" {
		return nil
	}
	s, f, err := t.dir.open(t.manifest.Producers)
	if err != nil {
		return err
	}
	defer f.Close()
	w := walk{file: s}
	for {
		if more, err := w.step(); !more || err != nil {
			return err
		}
		p, err := decodeProducer(w.value)
		if err != nil {
			return fmt.Errorf("read %s: %w", s.name, err)
		}
		ps.byID[binary.BigEndian.Uint64(w.key[:])] = p
		for _, d := range p.done {
			ps.bytes += int64(len(d.value)) + doneChunkBytes
		}
	}
}

// count sums up the files.
func (t *Table) count() {
	t.fileBytes, t.fileKeys = 0, 0
	for _, f := range t.files {
		t.fileBytes += f.Bytes
		t.fileKeys += f.Keys
	}
}

// Close closes the files. It writes nothing: the journal has it.
func (t *Table) Close() error {
	t.filesMu.Lock()
	defer t.filesMu.Unlock()
	var err error
	for _, f := range t.files {
		err = errors.Join(err, f.Close())
	}
	t.files = nil
	return err
}

// Checkpoint makes everything durable that is remembered of the commits up to
// upTo, so that these may be trimmed, drops files that are older than the
// window and forgets idle producers. upTo is at most the journal's head; the
// head itself is not to be trimmed. Begin goes on meanwhile. After the first
// error every call answers it: what a failed fsync left on the disk is not
// known, so the process has to stop (J4).
func (t *Table) Checkpoint(upTo uint64) error {
	t.checkpoint.Lock()
	defer t.checkpoint.Unlock()
	if t.failed == nil {
		t.failed = t.checkpointOnce(upTo)
	}
	return t.failed
}

func (t *Table) checkpointOnce(upTo uint64) error {
	next, producers := t.freeze(upTo)
	files := slices.Clone(t.files) // only checkpoints change the list
	if t.frozen != nil {
		f, err := t.writeFrozen(&next)
		if err != nil {
			return err
		}
		files = slices.Insert(files, 0, f)
	}
	files = slices.DeleteFunc(files, func(f *file) bool { return f.Newest+t.o.Window < next.Now })
	for {
		from, to := mergeRun(files, t.o.Window/windowParts)
		if to-from < 2 {
			break
		}
		f, err := t.merge(files[from:to], &next)
		if err != nil {
			return err
		}
		files = slices.Replace(files, from, to, f)
	}
	if err := t.writeProducers(producers, &next); err != nil {
		return err
	}
	for _, f := range files {
		next.Files = append(next.Files, f.fileInfo)
	}
	if err := t.dir.writeValue(manifestName, next); err != nil {
		return err
	}
	return t.install(next, files)
}

// freeze takes what is to be written out of the way of Begin and Done.
func (t *Table) freeze(upTo uint64) (manifest, map[uint64]producer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.recent.len() > 0 {
		t.frozen, t.recent = t.recent, newRecent()
	}
	t.producers.forgetIdle(t.now - t.o.ProducerIdle)
	// The head may be durable with Done still to come, and what is in flight may
	// be in it. All records of the commit before it are here.
	if len(t.inFlight) > 0 && upTo > 0 {
		upTo--
	}
	m := t.manifest
	return manifest{Through: max(upTo, m.Through), Now: t.now, NextProducer: t.producers.next, NextFile: m.NextFile}, t.producers.snapshot()
}

func (m *manifest) newName(prefix string) string {
	name := fmt.Sprintf("%s%08d", prefix, m.NextFile)
	m.NextFile++
	return name
}

func (t *Table) writeFrozen(m *manifest) (*file, error) {
	keys := t.frozen.sortedKeys()
	info := fileInfo{Name: m.newName(keysPrefix), Newest: m.Now}
	return t.writeKeys(info, len(keys), func(w *sortedWriter) error {
		for i := range keys {
			if err := w.add(&keys[i], t.frozen.get(&keys[i])); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeKeys writes a file of at most so many random keys and opens it.
func (t *Table) writeKeys(info fileInfo, keys int, fill func(*sortedWriter) error) (*file, error) {
	err := t.dir.write(info.Name, func(w io.Writer) error {
		s, err := newSortedWriter(w, newFilter(keys))
		if err != nil {
			return err
		}
		if err := fill(s); err != nil {
			return err
		}
		info.Bytes, err = s.finish()
		info.Keys = s.entries
		return err
	})
	if err != nil {
		return nil, err
	}
	s, f, err := t.dir.open(info.Name)
	if err != nil {
		return nil, err
	}
	return &file{info, s, f}, nil
}

// writeProducers writes all producers: their state is small and constant.
func (t *Table) writeProducers(all map[uint64]producer, m *manifest) error {
	if len(all) == 0 {
		return nil
	}
	m.Producers = m.newName(producersPrefix)
	return t.dir.write(m.Producers, func(w io.Writer) error {
		s, err := newSortedWriter(w, nil)
		if err != nil {
			return err
		}
		var value []byte
		for _, id := range slices.Sorted(maps.Keys(all)) {
			p, k := all[id], producerKey(id)
			value = appendProducer(value[:0], &p)
			if err := s.add(&k, value); err != nil {
				return err
			}
		}
		_, err = s.finish()
		return err
	})
}

// install puts the new files into use, then removes the old ones.
func (t *Table) install(next manifest, files []*file) error {
	t.filesMu.Lock()
	t.mu.Lock()
	old, oldProducers := t.files, t.manifest.Producers
	t.files, t.manifest, t.frozen = files, next, nil
	t.count()
	t.mu.Unlock()
	t.filesMu.Unlock()

	var err error
	for _, f := range old {
		if !slices.Contains(files, f) {
			err = errors.Join(err, f.Close(), t.dir.remove(f.Name))
		}
	}
	if oldProducers != "" {
		err = errors.Join(err, t.dir.remove(oldProducers))
	}
	return err
}

// mergeRun says which neighbouring files, newest first, become one. A part of
// the window that is over becomes one file. Within the newest part a run is
// merged when each older file is at most twice all newer ones together, so
// that a key is rewritten about log(n) times and about log(n) files remain.
func mergeRun(files []*file, part time.Duration) (from, to int) {
	partOf := func(i int) time.Duration { return files[i].Newest / max(part, 1) }
	for ; from < len(files); from = to {
		to = from + 1
		open := partOf(from) == partOf(0)
		sum := files[from].Bytes
		for to < len(files) && partOf(to) == partOf(from) && (!open || files[to].Bytes <= 2*sum) {
			sum += files[to].Bytes
			to++
		}
		if to-from >= mergeFilesMin || !open && to-from >= 2 {
			return from, to
		}
	}
	return 0, 0
}

// merge writes the keys of some files into one. Of equal keys, which a replay
// may leave, the newest stays; they say the same.
func (t *Table) merge(files []*file, m *manifest) (*file, error) {
	info := fileInfo{Name: m.newName(keysPrefix), Newest: files[0].Newest}
	keys := 0
	for _, f := range files {
		keys += int(f.Keys)
	}
	return t.writeKeys(info, keys, func(w *sortedWriter) error {
		walks := make([]*walk, 0, len(files))
		for _, f := range files {
			walks = append(walks, &walk{file: f.sorted})
		}
		return mergeWalks(walks, w.add)
	})
}

// mergeWalks gives the entries of all walks in order; of equal keys, that of the first walk.
func mergeWalks(walks []*walk, add func(*key, []byte) error) error {
	live := walks[:0]
	for _, w := range walks {
		more, err := w.step()
		if err != nil {
			return err
		}
		if more {
			live = append(live, w)
		}
	}
	for len(live) > 0 {
		least := live[0]
		for _, w := range live[1:] {
			if less(&w.key, &least.key) {
				least = w
			}
		}
		at := least.key
		if err := add(&at, least.value); err != nil {
			return err
		}
		for i := 0; i < len(live); {
			if live[i].key != at {
				i++
				continue
			}
			more, err := live[i].step()
			if err != nil {
				return err
			}
			if !more {
				live = slices.Delete(live, i, i+1)
				continue
			}
			i++
		}
	}
	return nil
}

func less(a, b *key) bool { return string(a[:]) < string(b[:]) }
