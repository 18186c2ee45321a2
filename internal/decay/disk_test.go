package decay_test

import (
	"sync/atomic"

	"sluice.dev/sluice/internal/vfs"
)

// countingFS is a file system that counts what goes to its files.
type countingFS struct {
	vfs.FS
	writes, bytes, syncs atomic.Int64
}

type diskCounts struct{ writes, bytes, syncs int64 }

func (f *countingFS) counts() diskCounts {
	return diskCounts{f.writes.Load(), f.bytes.Load(), f.syncs.Load()}
}

func (c diskCounts) minus(o diskCounts) diskCounts {
	return diskCounts{c.writes - o.writes, c.bytes - o.bytes, c.syncs - o.syncs}
}

func (f *countingFS) Create(name string) (vfs.File, error) { return f.count(f.FS.Create(name)) }
func (f *countingFS) Open(name string) (vfs.File, error)   { return f.count(f.FS.Open(name)) }
func (f *countingFS) OpenRW(name string) (vfs.File, error) { return f.count(f.FS.OpenRW(name)) }

func (f *countingFS) SyncDir(dir string) error {
	f.syncs.Add(1)
	return f.FS.SyncDir(dir)
}

func (f *countingFS) count(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &countingFile{file, f}, nil
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (f *countingFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.writes.Add(1)
	f.fs.bytes.Add(int64(len(p)))
	return f.File.WriteAt(p, off)
}

func (f *countingFile) Sync() error {
	f.fs.syncs.Add(1)
	return f.File.Sync()
}
