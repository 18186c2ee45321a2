package sim_test

import (
	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/vfs"
)

// defect is a mistake, planted from outside: around a contract that a part of
// the process works with, so that no production code knows of it.
type defect struct {
	name      string
	profile   func(*profile)                                       // makes the schedule that shows it likelier
	journal   func(*process, journal.Journal) journal.Journal      // around the journal
	drain     func(*process, *link, *schema.Group) journal.Journal // around the journal as a drainer sees it
	shard     func(*process, store.Shard) store.Shard              // around a shard
	disk      func(vfs.Op) error                                   // between journal and disk
	identity  func(*sluice.Chunk)                                  // of a chunk
	forgetful bool                                                 // identities are not remembered over a restart
}
