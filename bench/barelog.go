package main

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
)

// groupCommit is the least that a group commit can be: the first writer of a
// batch leads it, waits for the batch before to be durable, and flushes it for
// all who joined meanwhile.
type groupCommit[T any] struct {
	flush func([]T) error

	lead sync.Mutex // held while a batch is being flushed
	mu   sync.Mutex // guards open and spare
	open *groupBatch[T]
	free []T
}

type groupBatch[T any] struct {
	items []T
	done  chan struct{}
	err   error
}

func newGroupCommit[T any](flush func([]T) error) *groupCommit[T] {
	return &groupCommit[T]{flush: flush, open: &groupBatch[T]{done: make(chan struct{})}}
}

// write returns when item is durable.
func (g *groupCommit[T]) write(item T) error {
	g.mu.Lock()
	b := g.open
	leads := len(b.items) == 0
	b.items = append(b.items, item)
	g.mu.Unlock()
	if !leads {
		<-b.done
		return b.err
	}
	g.lead.Lock()
	defer g.lead.Unlock()
	// Those whom the last batch woke run first and join this one. Without it
	// half of them miss each batch, and the figures of this rival halve.
	runtime.Gosched()
	g.mu.Lock()
	g.open = &groupBatch[T]{items: g.free, done: make(chan struct{})}
	g.free = nil
	g.mu.Unlock()
	b.err = g.flush(b.items)
	close(b.done)
	g.mu.Lock()
	g.free = b.items[:0]
	g.mu.Unlock()
	return b.err
}

// bareLog is the rival of the journal: bytes one after the other into a file
// that is there already, and fdatasync. It has no checksum, no numbers, no
// index, cannot be recovered, and begins again at the front when it is full.
type bareLog struct {
	file   *os.File
	offset int64
	size   int64
	buf    []byte
}

func openBareLog(dir string, size int64) (*bareLog, error) {
	f, err := os.Create(filepath.Join(dir, "bare.log"))
	if err != nil {
		return nil, err
	}
	// Zeros are written and not only reserved: the first write to reserved space
	// would make the sync write the file's own books too.
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, at)
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &bareLog{file: f, size: size}, nil
}

func (l *bareLog) write(data []byte) error {
	if l.offset+int64(len(data)) > l.size {
		l.offset = 0
	}
	if _, err := l.file.WriteAt(data, l.offset); err != nil {
		return err
	}
	l.offset += int64(len(data))
	return syscall.Fdatasync(int(l.file.Fd()))
}

// writeAll is the flush of a group commit.
func (l *bareLog) writeAll(records [][]byte) error {
	l.buf = l.buf[:0]
	for _, r := range records {
		l.buf = append(l.buf, r...)
	}
	return l.write(l.buf)
}

func (l *bareLog) close() error {
	return errors.Join(l.file.Close(), os.Remove(l.file.Name()))
}
