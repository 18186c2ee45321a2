// Package route says which shard has which partitions. It is pure: the map
// comes from the catalog and changes only there.
package route

import (
	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Partitions gives the partitions of one shard.
func Partitions(m *schema.ShardMap, shard string) sluice.PartitionSet {
	var set sluice.PartitionSet
	for p, owner := range m.Owner {
		if int(owner) < len(m.Shards) && m.Shards[owner] == shard {
			set.Add(uint8(p))
		}
	}
	return set
}
