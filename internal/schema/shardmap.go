package schema

import (
	"encoding/json"
	"fmt"
	"slices"

	"sluice.dev/sluice"
)

// ShardMap says which shard owns which partition of a store.
type ShardMap struct {
	Version uint64
	Shards  []string                  // those that own nothing too
	Owner   [sluice.Partitions]uint16 // index into Shards
}

// newShardMap splits the partitions into even, contiguous ranges.
func newShardMap(shards []Shard) ShardMap {
	m := ShardMap{Version: 1}
	for _, s := range shards {
		m.Shards = append(m.Shards, s.Name)
	}
	for p := range m.Owner {
		m.Owner[p] = uint16(p * len(shards) / sluice.Partitions)
	}
	return m
}

// Shard is the name of the shard that owns a partition.
func (m *ShardMap) Shard(p uint8) string { return m.Shards[m.Owner[p]] }

// Partitions is what a shard owns; empty when the map does not know it.
func (m *ShardMap) Partitions(shard string) (set sluice.PartitionSet) {
	for p, owner := range m.Owner {
		if m.Shards[owner] == shard {
			set.Add(uint8(p))
		}
	}
	return set
}

func (m *ShardMap) verify() error {
	for p, owner := range m.Owner {
		if int(owner) >= len(m.Shards) {
			return fmt.Errorf("partition %d belongs to no shard", p)
		}
	}
	return nil
}

// shardMapJSON is the map as people read it: ranges instead of 256 numbers.
type shardMapJSON struct {
	Version uint64       `json:"version"`
	Shards  []string     `json:"shards"`
	Ranges  []shardRange `json:"ranges"`
}

type shardRange struct {
	From  int    `json:"from"`
	To    int    `json:"to"`
	Shard string `json:"shard"`
}

// MarshalJSON writes the partitions as ranges.
func (m ShardMap) MarshalJSON() ([]byte, error) {
	out := shardMapJSON{Version: m.Version, Shards: m.Shards}
	for p := range m.Owner {
		shard := m.Shard(uint8(p))
		if n := len(out.Ranges); n > 0 && out.Ranges[n-1].Shard == shard {
			out.Ranges[n-1].To = p
			continue
		}
		out.Ranges = append(out.Ranges, shardRange{From: p, To: p, Shard: shard})
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads the ranges; together they name each partition once, in order.
func (m *ShardMap) UnmarshalJSON(data []byte) error {
	var in shardMapJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	m.Version, m.Shards = in.Version, in.Shards
	next := 0
	for _, r := range in.Ranges {
		owner := slices.Index(in.Shards, r.Shard)
		if owner < 0 || r.From != next || r.To < r.From || r.To >= len(m.Owner) {
			return fmt.Errorf("shard map: range %d to %d of shard %q does not fit", r.From, r.To, r.Shard)
		}
		for ; next <= r.To; next++ {
			m.Owner[next] = uint16(owner)
		}
	}
	if next != len(m.Owner) {
		return fmt.Errorf("shard map: partition %d belongs to no shard", next)
	}
	return nil
}
