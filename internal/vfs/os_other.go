//go:build unix && !linux

package vfs

// Allocate does nothing: the space is taken when it is written.
func (f osFile) Allocate(int64) error { return nil }

// Sync asks for more than fdatasync does (on macOS F_FULLFSYNC), which is what
// those systems offer.
func (f osFile) Sync() error { return f.File.Sync() }
