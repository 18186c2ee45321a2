package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"sluice.dev/sluice/internal/vfs"
)

// The mark says which commit was durable last (J3). It has two slots, a block
// apart and written in turn, so that a torn one leaves the one before.

const (
	markFile  = "mark"
	markMagic = "SLUICEMK"
	markSumAt = 48
	markBytes = markSumAt + 8
	markSlots = 2
)

// mark is the open mark file. write is called under Journal.appending.
type mark struct {
	file    vfs.File
	slot    int64
	buf     [markBytes]byte
	written atomic.Uint64 // number last written
	synced  atomic.Uint64 // number last synced
}

// vouched is what a mark says.
type vouched struct {
	number uint64
	chain  uint64
	slot   int64
}

func (m *mark) write(k *key, number, chain uint64) error {
	b := m.buf[:]
	copy(b, markMagic)
	binary.LittleEndian.PutUint32(b[8:], Format)
	copy(b[16:], k.id[:])
	binary.LittleEndian.PutUint64(b[32:], number)
	binary.LittleEndian.PutUint64(b[40:], chain)
	binary.LittleEndian.PutUint64(b[markSumAt:], xxhash.Sum64(b[:markSumAt]))
	m.slot = (m.slot + 1) % markSlots
	if _, err := m.file.WriteAt(b, m.slot*blockBytes); err != nil {
		return fmt.Errorf("mark of commit %d: %w", number, err)
	}
	m.written.Store(number)
	return nil
}

// SyncMark makes the mark durable when it moved since the last call. The owner
// calls it from a loop within each second; Append never waits for it.
func (j *Journal) SyncMark() error {
	if err := j.failure(); err != nil {
		return err
	}
	number := j.mark.written.Load()
	if number == j.mark.synced.Load() {
		return nil
	}
	if err := j.mark.file.Sync(); err != nil {
		return j.poison(fmt.Errorf("sync of the mark: %w", err))
	}
	j.mark.synced.Store(number)
	return nil
}

// readMark gives the newest whole slot; the zero one when there is none, which
// vouches for nothing.
func readMark(fsys vfs.FS, dir string, k *key) (vouched, error) {
	var newest vouched
	f, err := fsys.Open(filepath.Join(dir, markFile))
	if errors.Is(err, fs.ErrNotExist) {
		return newest, nil
	}
	if err != nil {
		return newest, err
	}
	defer f.Close()
	for slot := range int64(markSlots) {
		b := make([]byte, markBytes)
		if _, err := f.ReadAt(b, slot*blockBytes); err != nil && !errors.Is(err, io.EOF) {
			return newest, err
		}
		if string(b[:8]) != markMagic || string(b[16:32]) != string(k.id[:]) ||
			xxhash.Sum64(b[:markSumAt]) != binary.LittleEndian.Uint64(b[markSumAt:]) {
			continue
		}
		if format := binary.LittleEndian.Uint32(b[8:]); format > Format {
			return newest, fmt.Errorf("%s: %w", filepath.Join(dir, markFile), newerFormat("mark", format))
		}
		if n := binary.LittleEndian.Uint64(b[32:]); n >= newest.number {
			newest = vouched{number: n, chain: binary.LittleEndian.Uint64(b[40:]), slot: slot}
		}
	}
	return newest, nil
}

// openMark opens the mark file for writing and makes it when it is missing. Its
// size never changes, so a sync of it needs no metadata.
func openMark(fsys vfs.FS, dir string) (vfs.File, error) {
	path := filepath.Join(dir, markFile)
	f, err := fsys.OpenRW(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err = fsys.Create(path + tempSuffix); err != nil {
		return nil, err
	}
	_, err = f.WriteAt(make([]byte, markSlots*blockBytes), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = fsys.Rename(path+tempSuffix, path)
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
