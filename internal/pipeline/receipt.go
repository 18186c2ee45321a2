package pipeline

import (
	"encoding/binary"
	"slices"

	"sluice.dev/sluice"
)

// JournalNumber is how receipts name a journal: the first 8 bytes of its id.
func JournalNumber(id [16]byte) uint64 { return binary.BigEndian.Uint64(id[:8]) }

// receipt names the streams and keys of what was accepted of a chunk; its
// commit is filled in when that has a number.
func (a *Acceptor) receipt(c *sluice.Chunk) sluice.Receipt {
	r := sluice.Receipt{Journal: JournalNumber(a.o.Journal.ID())}
	for i := range c.Entries {
		if !c.Accepts(i) {
			continue
		}
		e := &c.Entries[i]
		at := slices.IndexFunc(r.Groups, func(g sluice.ReceiptGroup) bool { return g.Group == e.Group })
		if at < 0 {
			at = len(r.Groups)
			r.Groups = append(r.Groups, sluice.ReceiptGroup{Group: e.Group})
		}
		r.Groups[at].Partitions.Add(e.Partition())
		if len(r.Keys) <= sluice.ReceiptKeysMax {
			if h := sluice.KeyHash(e.Group, e.Key); !slices.Contains(r.Keys, h) {
				r.Keys = append(r.Keys, h)
			}
		}
	}
	if len(r.Keys) > sluice.ReceiptKeysMax {
		r.Keys = nil
	}
	return r
}

func chunkBytes(c *sluice.Chunk) int {
	n := 0
	for i := range c.Entries {
		n += 48 + len(c.Entries[i].Key)
		for j := range c.Entries[i].Cells {
			n += 32 + len(c.Entries[i].Cells[j].Value.Bytes)
		}
	}
	return n
}
