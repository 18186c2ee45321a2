package vfs

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// Kill is what the next process finds after a kill -9: all that was written,
// synced or not, and no lock held. What was not synced still is not, so a later
// PowerCut may take it. The old Mem is of no more use to a test.
func (m *Mem) Kill(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.successor(seed)
	nodes := map[*inode]*inode{}
	for name, node := range m.seen {
		next.seen[name] = cloned(nodes, node)
	}
	for name, node := range m.durable {
		next.durable[name] = cloned(nodes, node)
	}
	for _, c := range m.pending {
		set := map[string]*inode{}
		for name, node := range c.set {
			if node != nil {
				node = cloned(nodes, node)
			}
			set[name] = node
		}
		next.pending = append(next.pending, nameChange{c.dir, set})
	}
	return next
}

// PowerCut is what the next boot finds. Names: a prefix of what no SyncDir made
// durable. Content: what was synced, and of each sector written since then any
// version, old ones too, each sector by itself. The old Mem stays as it is, so
// that many cuts can be made from one run.
func (m *Mem) PowerCut(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.successor(seed)
	names := maps.Clone(m.durable)
	for _, c := range m.pending[:next.rng.IntN(len(m.pending)+1)] {
		apply(names, c)
	}
	nodes := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		node := names[name]
		if nodes[node] == nil {
			disk := node.cut(next.rng)
			nodes[node] = &inode{name: name, data: disk, disk: slices.Clone(disk), dirty: map[int64][][]byte{}}
		}
		next.seen[name] = nodes[node]
		next.durable[name] = nodes[node]
	}
	return next
}

func (m *Mem) successor(seed uint64) *Mem {
	next := NewMem(seed)
	next.dirs = maps.Clone(m.dirs)
	next.capacity = m.capacity
	return next
}

// cut is what a power cut leaves of a file.
func (n *inode) cut(rng *rand.Rand) []byte {
	disk := slices.Clone(n.disk)
	if len(n.data) > len(disk) && rng.IntN(2) == 0 {
		disk = grown(disk, len(n.data))
	}
	for _, s := range sortedSectors(n.dirty) {
		versions := n.dirty[s]
		i := rng.IntN(len(versions) + 1)
		if from := s * sectorBytes; i > 0 && from < int64(len(disk)) {
			copy(disk[from:], versions[i-1])
		}
	}
	return disk
}

func sortedSectors(dirty map[int64][][]byte) []int64 { return slices.Sorted(maps.Keys(dirty)) }

func cloned(nodes map[*inode]*inode, node *inode) *inode {
	if nodes[node] == nil {
		dirty := map[int64][][]byte{}
		for s, versions := range node.dirty {
			dirty[s] = slices.Clone(versions)
		}
		nodes[node] = &inode{name: node.name, data: slices.Clone(node.data), disk: slices.Clone(node.disk), dirty: dirty}
	}
	return nodes[node]
}

// Flip inverts the bits of mask in one byte, on the disk and for programs:
// a disk that returns what was never written.
func (m *Mem) Flip(name string, offset int64, mask byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	node := m.seen[filepath.Clean(name)]
	if node == nil {
		return pathError("flip", name, fs.ErrNotExist)
	}
	if offset < 0 || offset >= int64(len(node.data)) {
		return fmt.Errorf("flip %s: no byte %d in a file of %d", name, offset, len(node.data))
	}
	node.data[offset] ^= mask
	if offset < int64(len(node.disk)) {
		node.disk[offset] = node.data[offset]
	}
	return nil
}
