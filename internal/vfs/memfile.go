package vfs

import (
	"io"
	"io/fs"
)

// memFile is an open file of a Mem.
type memFile struct {
	fs       *Mem
	node     *inode
	writable bool
	closed   bool // under fs.mu
}

// op is a call on the file, under the name that it has by now.
func (f *memFile) op(kind string, off int64, bytes int) Op {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return Op{Kind: kind, Name: f.node.name, Offset: off, Bytes: bytes}
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	v := f.fs.enter(f.op("read", off, len(p)), false)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, pathError("read", f.node.name, fs.ErrClosed)
	}
	if v.err != nil {
		return 0, pathError("read", f.node.name, v.err)
	}
	if off < 0 || off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	v := f.fs.enter(f.op("write", off, len(p)), true)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("write"); err != nil {
		return 0, err
	}
	if v.skip {
		return len(p), nil
	}
	if grow := off + int64(len(p)) - int64(len(f.node.data)); grow > 0 && v.err == nil {
		if err := f.fs.room(grow); err != nil {
			return 0, pathError("write", f.node.name, err)
		}
	}
	if v.err == nil {
		f.node.write(p, off)
		return len(p), nil
	}
	if v.part {
		f.writeSome(p, off)
	}
	return 0, pathError("write", f.node.name, v.err)
}

// writeSome writes the sectors of p that chance picks.
func (f *memFile) writeSome(p []byte, off int64) {
	for len(p) > 0 {
		n := min(int64(len(p)), sectorBytes-off%sectorBytes)
		if f.fs.rng.IntN(2) == 0 {
			f.node.write(p[:n], off)
		}
		p, off = p[n:], off+n
	}
}

func (f *memFile) usable(op string) error {
	if f.closed {
		return pathError(op, f.node.name, fs.ErrClosed)
	}
	if !f.writable {
		return pathError(op, f.node.name, fs.ErrPermission)
	}
	return nil
}

func (f *memFile) Allocate(size int64) error {
	v := f.fs.enter(f.op("allocate", 0, int(size)), true)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.usable("fallocate"); err != nil {
		return err
	}
	if !v.skip && f.fs.lucky(v) {
		if err := f.fs.room(size - int64(len(f.node.data))); err != nil {
			return pathError("fallocate", f.node.name, err)
		}
		f.node.data = grown(f.node.data, int(size))
	}
	if v.err != nil {
		return pathError("fallocate", f.node.name, v.err)
	}
	return nil
}

func (f *memFile) Sync() error {
	v := f.fs.enter(f.op("sync", 0, 0), true)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("fdatasync", f.node.name, fs.ErrClosed)
	}
	switch {
	case v.skip:
		return nil
	case v.err == nil:
		f.node.sync(func() bool { return true })
		return nil
	case v.part && f.fs.crashed:
		// Dirty sectors stay dirty; the power cut decides about each.
	default:
		// The kernel writes what it can, marks all of it clean and reports
		// once: the next sync succeeds without the lost sectors.
		f.node.sync(func() bool { return f.fs.rng.IntN(2) == 0 })
	}
	return pathError("fdatasync", f.node.name, v.err)
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, pathError("stat", f.node.name, fs.ErrClosed)
	}
	return int64(len(f.node.data)), nil
}

func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("close", f.node.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// write changes what programs see and remembers what each sector then held.
func (n *inode) write(p []byte, off int64) {
	end := off + int64(len(p))
	n.data = grown(n.data, int(end))
	copy(n.data[off:], p)
	for s := off / sectorBytes; s*sectorBytes < end; s++ {
		n.dirty[s] = append(n.dirty[s], n.sector(s))
	}
}

// sector is a copy of what programs see of a sector.
func (n *inode) sector(s int64) []byte {
	from := s * sectorBytes
	to := min(from+sectorBytes, int64(len(n.data)))
	return append([]byte(nil), n.data[from:to]...)
}

// sync moves the dirty sectors that written picks to the disk and forgets that
// any was dirty.
func (n *inode) sync(written func() bool) {
	n.disk = grown(n.disk[:min(len(n.disk), len(n.data))], len(n.data))
	for _, s := range sortedSectors(n.dirty) {
		if written() {
			versions := n.dirty[s]
			copy(n.disk[s*sectorBytes:], versions[len(versions)-1])
		}
	}
	clear(n.dirty)
}

// grown is b with at least size bytes, zeros behind.
func grown(b []byte, size int) []byte {
	if len(b) >= size {
		return b
	}
	return append(b, make([]byte, size-len(b))...)
}
