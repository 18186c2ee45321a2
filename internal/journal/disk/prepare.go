package disk

import (
	"errors"
	"fmt"
	"io/fs"

	"sluice.dev/sluice/internal/vfs"
)

const (
	// spareFile is the next segment before it has a number. A start removes it:
	// only the run that zeroed it knows that it is zeros.
	spareFile = "spare" + tempSuffix

	// zeroBytes is written between two syncs while a spare is made, so that a
	// commit's sync never queues behind more than that.
	zeroBytes = 1 << 20

	// firstZeroBytes is how much of a new journal's first segment is zeroed
	// before it opens: enough until Prepare has run, and quickly done.
	firstZeroBytes = 8 << 20
)

// Prepare does the work that keeps the commit path short: it writes the index
// of sealed segments and has one zeroed segment ready. The owner calls it from
// a loop, some ten times a second; it does nothing when nothing is to do.
// Append never waits for it and goes on without a spare when there is none.
func (j *Journal) Prepare() error {
	j.preparing.Lock()
	defer j.preparing.Unlock()
	if err := j.failure(); err != nil {
		return err
	}
	if err := j.writeIndexes(); err != nil {
		return err
	}
	j.mu.RLock()
	// While Append makes a segment of the spare, the file still lies under that
	// name: to make the next one there would empty the segment, and write zeros
	// over its commits.
	enough := j.spare != nil || j.taking || j.bytes+j.opts.SegmentBytes > j.opts.BytesMax
	j.mu.RUnlock()
	if enough {
		return nil
	}
	return j.makeSpare(j.opts.SegmentBytes)
}

// makeSpare writes zeros ahead of use, up to upTo. Space that was only reserved
// costs a change of metadata in each commit that first writes it, and such
// commits took up to twice as long (docs/decisions/002).
func (j *Journal) makeSpare(upTo int64) error {
	file, err := j.create(spareFile)
	if err != nil {
		return err
	}
	zeros := make([]byte, zeroBytes)
	for off := int64(0); off < upTo && err == nil; off += zeroBytes {
		if _, err = file.WriteAt(zeros[:min(zeroBytes, upTo-off)], off); err == nil {
			err = file.Sync()
		}
	}
	if err != nil {
		return j.scrap(file, spareFile, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.spare = file
	j.bytes += j.opts.SegmentBytes
	return nil
}

// create makes a file of the size of a segment that reads as zeros.
func (j *Journal) create(name string) (vfs.File, error) {
	file, err := j.opts.FS.Create(j.path(name))
	if err != nil {
		return nil, j.broken(fmt.Errorf("new segment: %w", err))
	}
	if err := file.Allocate(j.opts.SegmentBytes); err != nil {
		return nil, j.scrap(file, name, err)
	}
	return file, nil
}

// scrap gives up on a file that was being made. That it cannot be removed is no
// news of its own: the next one of the name replaces it.
func (j *Journal) scrap(file vfs.File, name string, err error) error {
	err = errors.Join(j.broken(fmt.Errorf("new segment: %w", err)), file.Close())
	if rmErr := j.opts.FS.Remove(j.path(name)); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		err = errors.Join(err, rmErr)
	}
	return err
}

// takeSpare gives a file to make a segment of, and its name so far. Without a
// spare it reserves space and leaves the zeros out, so that nobody waits for
// them: the commits in it are slower, and as safe. The caller calls taken when
// the file has its own name, or is gone.
func (j *Journal) takeSpare() (vfs.File, string, error) {
	j.mu.Lock()
	if spare := j.spare; spare != nil {
		j.spare, j.taking = nil, true
		j.mu.Unlock()
		return spare, j.path(spareFile), nil
	}
	if j.bytes+j.opts.SegmentBytes > j.opts.BytesMax {
		used := j.bytes
		j.mu.Unlock()
		return nil, "", j.refuse("journal_full", "journal in %s holds %d of at most %d bytes: wait until more is drained, or raise bytes_max", j.opts.Dir, used, j.opts.BytesMax)
	}
	j.bytes += j.opts.SegmentBytes
	j.mu.Unlock()
	const name = "next" + tempSuffix
	file, err := j.create(name)
	if err != nil {
		j.mu.Lock()
		j.bytes -= j.opts.SegmentBytes
		j.mu.Unlock()
		return nil, "", err
	}
	return file, j.path(name), nil
}

// taken frees the spare's name.
func (j *Journal) taken() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.taking = false
}

// writeIndexes writes the index of each sealed segment that has none. The
// caller holds preparing.
func (j *Journal) writeIndexes() error {
	for {
		s, data := j.nextIndex()
		if s == nil {
			return nil
		}
		if err := j.save(indexName(s.first), data); err != nil {
			return err
		}
		j.mu.Lock()
		s.ends = nil
		j.mu.Unlock()
	}
}

func (j *Journal) nextIndex() (*segment, []byte) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for _, s := range j.segs {
		if s.sealed != 0 && s.ends != nil {
			return s, encodeIndex(s)
		}
	}
	return nil, nil
}
