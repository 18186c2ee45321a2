package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

// Errors that a Mem answers on request.
const (
	// ErrCrashed answers every call after CrashAt.
	ErrCrashed = Error("vfs: the machine is down")
	// ErrSkip, answered by a fault function, lets the call report success
	// without doing anything: a disk that lies, or a step left out.
	ErrSkip = Error("vfs: skip")
)

// Op is one call, as a fault function sees it.
type Op struct {
	Kind   string // create open read write allocate sync rename remove syncdir lock
	Name   string // the file; for rename the old name
	Offset int64
	Bytes  int
	Seq    int // 1 for the first call that changes something; 0 for calls that change nothing
}

// Mem is a disk in memory that keeps apart what programs see and what a power
// cut leaves. The same seed and the same calls give the same faults. Directories
// are durable as soon as they are made; everything else needs its sync.
type Mem struct {
	mu       sync.Mutex
	rng      *rand.Rand
	seen     map[string]*inode // names as programs see them
	durable  map[string]*inode // names as a power cut leaves them, with the pending ones applied in order
	pending  []nameChange      // since the SyncDir of its directory, oldest first
	dirs     map[string]bool
	locks    map[string]bool
	capacity int64 // bytes; 0: no limit
	fault    func(Op) error
	seq      int
	crashAt  int // 0: never
	crashed  bool
}

// nameChange is what a directory has not yet made durable: to is nil for a
// name that goes.
type nameChange struct {
	dir string
	set map[string]*inode
}

// inode is a file without its name.
type inode struct {
	name string // the last one given to it
	data []byte // what programs see
	disk []byte // what is durable
	// dirty holds, for each sector written since the last sync, what it held
	// after each write, oldest first: writeback may have caught any of them.
	dirty map[int64][][]byte
}

// NewMem makes an empty disk.
func NewMem(seed uint64) *Mem {
	return &Mem{
		rng:     rand.New(rand.NewPCG(seed, 0x736c75696365)),
		seen:    map[string]*inode{},
		durable: map[string]*inode{},
		dirs:    map[string]bool{"/": true, ".": true},
		locks:   map[string]bool{},
	}
}

// SetFault has f asked before every call; what it answers, the call answers.
// A failed write leaves some of its sectors, a failed sync forgets that the
// sectors are dirty, as Linux does. f may block: a slow disk.
func (m *Mem) SetFault(f func(Op) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// SetCapacity limits the disk; 0 lifts the limit.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// CrashAt stops the machine in the n-th call that changes something, counted
// from the making of the Mem: that call is done in part, it and all later ones
// answer ErrCrashed. Then Kill or PowerCut give what is left.
func (m *Mem) CrashAt(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashAt = n
}

// Changes counts the calls so far that changed something.
func (m *Mem) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seq
}

// verdict is what enter decides about a call.
type verdict struct {
	err  error
	skip bool // answer success, do nothing
	part bool // do it in part, then answer err
}

// enter counts a call and asks the fault function, without the lock.
func (m *Mem) enter(op Op, changes bool) verdict {
	m.mu.Lock()
	if changes && !m.crashed {
		m.seq++
		op.Seq = m.seq
	}
	if m.crashed {
		m.mu.Unlock()
		return verdict{err: ErrCrashed}
	}
	if changes && m.seq == m.crashAt {
		m.crashed = true
		m.mu.Unlock()
		return verdict{err: ErrCrashed, part: true}
	}
	fault := m.fault
	m.mu.Unlock()
	if fault == nil {
		return verdict{}
	}
	err := fault(op)
	if errors.Is(err, ErrSkip) {
		return verdict{skip: true}
	}
	return verdict{err: err, part: err != nil}
}

// lucky decides whether a call that is done in part takes effect.
func (m *Mem) lucky(v verdict) bool { return v.err == nil || v.part && m.rng.IntN(2) == 0 }

// change makes a change of names visible; SyncDir makes it durable.
func (m *Mem) change(dir string, set map[string]*inode) {
	for name, node := range set {
		if node == nil {
			delete(m.seen, name)
		} else {
			m.seen[name] = node
		}
	}
	m.pending = append(m.pending, nameChange{dir, set})
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir = filepath.Clean(dir); !m.dirs[dir]; dir = filepath.Dir(dir) {
		m.dirs[dir] = true
	}
	return nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	name = filepath.Clean(name)
	v := m.enter(Op{Kind: "create", Name: name}, true)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[filepath.Dir(name)] {
		return nil, pathError("create", name, fs.ErrNotExist)
	}
	node := &inode{name: name, dirty: map[int64][][]byte{}}
	if !v.skip && m.lucky(v) {
		m.change(filepath.Dir(name), map[string]*inode{name: node})
	}
	if v.err != nil {
		return nil, pathError("create", name, v.err)
	}
	return &memFile{fs: m, node: node, writable: true}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenRW implements FS.
func (m *Mem) OpenRW(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, writable bool) (File, error) {
	name = filepath.Clean(name)
	if v := m.enter(Op{Kind: "open", Name: name}, false); v.err != nil {
		return nil, pathError("open", name, v.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.seen[name]
	if node == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{fs: m, node: node, writable: writable}, nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	v := m.enter(Op{Kind: "rename", Name: from}, true)
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.seen[from]
	if node == nil {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if !v.skip && m.lucky(v) {
		m.change(filepath.Dir(to), map[string]*inode{from: nil, to: node})
		node.name = to
	}
	if v.err != nil {
		return pathError("rename", from, v.err)
	}
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = filepath.Clean(name)
	v := m.enter(Op{Kind: "remove", Name: name}, true)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen[name] == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if !v.skip && m.lucky(v) {
		m.change(filepath.Dir(name), map[string]*inode{name: nil})
	}
	if v.err != nil {
		return pathError("remove", name, v.err)
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = filepath.Clean(dir)
	v := m.enter(Op{Kind: "syncdir", Name: dir}, true)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !v.skip && m.lucky(v) {
		var left []nameChange
		for _, c := range m.pending {
			if c.dir == dir {
				apply(m.durable, c)
			} else {
				left = append(left, c)
			}
		}
		m.pending = left
	}
	if v.err != nil {
		return pathError("fsync", dir, v.err)
	}
	return nil
}

func apply(names map[string]*inode, c nameChange) {
	for name, node := range c.set {
		if node == nil {
			delete(names, name)
		} else {
			names[name] = node
		}
	}
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	dir = filepath.Clean(dir)
	if v := m.enter(Op{Kind: "open", Name: dir}, false); v.err != nil {
		return nil, pathError("open", dir, v.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return nil, pathError("open", dir, fs.ErrNotExist)
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(m.seen)) {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	return names, nil
}

// Free implements FS.
func (m *Mem) Free(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.crashed {
		return 0, ErrCrashed
	}
	if m.capacity == 0 {
		return 1 << 50, nil
	}
	return max(0, m.capacity-m.used()), nil
}

func (m *Mem) used() int64 {
	var sum int64
	for _, node := range m.seen {
		sum += int64(len(node.data))
	}
	return sum
}

// room says whether a file may grow by so many bytes.
func (m *Mem) room(bytes int64) error {
	if m.capacity > 0 && m.used()+bytes > m.capacity {
		return syscall.ENOSPC
	}
	return nil
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	name = filepath.Clean(name)
	if v := m.enter(Op{Kind: "lock", Name: name}, false); v.err != nil {
		return nil, pathError("lock", name, v.err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[name] {
		return nil, pathError("lock", name, ErrLocked)
	}
	m.locks[name] = true
	return &memLock{fs: m, name: name}, nil
}

type memLock struct {
	fs   *Mem
	name string
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	return nil
}
