// Package vfs holds the few file operations that the journal needs: the real
// ones, and a faulty disk in memory for tests. It never interprets a byte of
// what it stores, and it never retries: a failed call is the caller's news.
package vfs

import "io"

// FS is a file system. OS is the real one, Mem the faulty one.
//
// A name is durable only after SyncDir of its directory: a file that was made,
// renamed or removed without it may be back at its old place after a power cut.
type FS interface {
	// MkdirAll makes a directory and its parents.
	MkdirAll(dir string) error
	// Create makes an empty file for reading and writing. One that was there
	// under the name is emptied.
	Create(name string) (File, error)
	// Open opens a file for reading only.
	Open(name string) (File, error)
	// OpenRW opens a file that exists for reading and writing.
	OpenRW(name string) (File, error)
	// Rename replaces what stands under to.
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the names in a directory durable.
	SyncDir(dir string) error
	// List gives the names of the files in a directory, sorted.
	List(dir string) ([]string, error)
	// Free is the space that an ordinary user can still write, in bytes.
	Free(dir string) (int64, error)
	// Lock takes a lock file, made when it is missing, or answers ErrLocked.
	// The lock goes with the process, however that ends.
	Lock(name string) (io.Closer, error)
}

// File is one open file. ReadAt and WriteAt may be called concurrently; a call
// after or during Close may answer fs.ErrClosed, and touches no other file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Allocate reserves space up to size and makes the file at least as long;
	// what was not written reads as zeros. A file system that cannot reserve
	// does nothing and answers nil.
	Allocate(size int64) error
	// Sync makes the content durable (fdatasync). After an error it is unknown
	// which of the unsynced bytes are on the disk, and a second Sync that
	// succeeds proves nothing about them.
	Sync() error
}

// Error is a constant error of this package.
type Error string

func (e Error) Error() string { return string(e) }

// ErrLocked says that another process holds the lock file.
const ErrLocked = Error("vfs: locked by another process")
