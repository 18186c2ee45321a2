package disk

import (
	"errors"
	"fmt"
	"io/fs"

	"sluice.dev/sluice/internal/vfs"
)

const (
	// epochStep is how many epochs one durable write reserves. A crash skips
	// what is left of them.
	epochStep = 64
	// epochEra is the distance to which adopt jumps: nothing that a lost part of
	// the journal handed out lies at or above the next multiple of it.
	epochEra = 1 << 32
)

// NextEpoch implements journal.Journal.
func (j *Journal) NextEpoch() (uint64, error) {
	j.epochs.Lock()
	defer j.epochs.Unlock()
	if err := j.failure(); err != nil {
		return 0, err
	}
	if j.epoch == j.epochMax {
		if err := j.reserveEpochs(j.epochMax + epochStep); err != nil {
			return 0, err
		}
	}
	j.epoch++
	return j.epoch, nil
}

// AdoptEpoch implements journal.Journal.
func (j *Journal) AdoptEpoch(seen uint64) error {
	j.epochs.Lock()
	defer j.epochs.Unlock()
	if err := j.failure(); err != nil {
		return err
	}
	era := nextEra(max(seen, j.epochMax))
	if err := j.reserveEpochs(era + epochStep); err != nil {
		return err
	}
	j.epoch = era - 1
	return nil
}

// nextEra is the next multiple of epochEra above n.
func nextEra(n uint64) uint64 { return (n/epochEra + 1) * epochEra }

func (j *Journal) reserveEpochs(limit uint64) error {
	if err := j.save(epochFile, appendU64(nil, limit)); err != nil {
		return fmt.Errorf("reserve epochs: %w", err)
	}
	j.epochMax = limit
	return nil
}

// loadEpochMax gives the highest epoch that may ever have been handed out.
func loadEpochMax(fsys vfs.FS, dir string) (uint64, error) {
	data, err := readFile(fsys, dir, epochFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	d := decoder{data: data}
	limit := d.u64()
	if d.bad || len(d.data) > 0 {
		return 0, corrupt(epochFile, 0, faultf("one number", "%d bytes", len(data)))
	}
	return limit, nil
}
