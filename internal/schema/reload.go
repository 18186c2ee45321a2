package schema

import (
	"fmt"
	"maps"
	"slices"
)

// ReloadDiff says what a reload changed, in sentences for the log. Both schemas
// were resolved with the same catalog, one after the other.
func ReloadDiff(old, next *Schema) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	before := map[uint32]*Group{}
	for _, g := range old.Groups() {
		before[uint32(g.ID)] = g
	}
	for _, g := range next.Groups() {
		was := before[uint32(g.ID)]
		switch {
		case was == nil && !g.Dropped:
			say("%s was added: %s in store %s", g.FullName(), g.Physical, g.Store)
		case was == nil:
		case g.Dropped && !was.Dropped:
			say("%s was removed: what is queued for it is still applied, its physical table %s stays", g.FullName(), g.Physical)
		case !g.Dropped:
			diffGroup(say, was, g)
		}
	}
	diffStores(say, old, next)
	diffClients(say, old, next)
	for _, part := range []struct {
		name    string
		changed bool
	}{
		{"listen", old.Listen != next.Listen}, {"journal", old.Journal != next.Journal},
		{"idempotency", old.Idempotency != next.Idempotency},
	} {
		if part.changed && part.name == "journal" {
			say("journal changed: its limits apply at once, dir and segment_bytes at the next start")
		} else if part.changed {
			say("%s changed: takes effect at the next start", part.name)
		}
	}
	if old.Limits != next.Limits {
		say("limits changed: new requests follow them; what an open door was started with, its timeouts and connections, changes at the next start")
	}
	return out
}

func diffGroup(say func(string, ...any), was, g *Group) {
	for _, c := range g.Columns {
		old := was.ByID(c.ID)
		switch {
		case old == nil && !c.Dropped:
			say("%s was added: physical column %s of %s", c.fullName(), c.Physical, g.Physical)
		case old != nil && c.Dropped && !old.Dropped:
			say("%s was removed: what is queued for it is still applied, its physical column %s stays", c.fullName(), c.Physical)
		}
	}
	if was.Flush != g.Flush {
		say("%s is flushed every %s, not %s", g.FullName(), formatDuration(g.Flush), formatDuration(was.Flush))
	}
	if was.Priority != g.Priority {
		say("%s has priority %s, not %s", g.FullName(), g.Priority, was.Priority)
	}
	if was.Existing != nil && g.Existing != nil && *was.Existing != *g.Existing {
		say("%s treats its existing table otherwise: missing rows, other writers or deletes changed", g.FullName())
	}
}

func diffStores(say func(string, ...any), old, next *Schema) {
	for _, name := range slices.Sorted(maps.Keys(next.Stores)) {
		s, was := next.Stores[name], old.Stores[name]
		switch {
		case was == nil:
			say("store %s was added", name)
		case !slices.Equal(was.Shards, s.Shards):
			say("the shards of store %s changed: takes effect at the next start", name)
		case !s.sameSettings(was):
			say("the settings of store %s changed: takes effect at the next start", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.Stores)) {
		if next.Stores[name] == nil {
			say("store %s was removed", name)
		}
	}
}

// sameSettings compares what is not the shards.
func (s *Store) sameSettings(other *Store) bool {
	a, b := *s, *other
	return a.DDL == b.DDL && a.SynchronousCommit == b.SynchronousCommit && a.ConnsMax == b.ConnsMax &&
		a.BatchRowsMax == b.BatchRowsMax && a.BatchBytesMax == b.BatchBytesMax && a.BatchTimeMax == b.BatchTimeMax &&
		a.LockTimeout == b.LockTimeout && a.ParkedMax == b.ParkedMax && a.RejectsMax == b.RejectsMax &&
		a.FKWait == b.FKWait && a.AllowDups == b.AllowDups
}

func diffClients(say func(string, ...any), old, next *Schema) {
	for _, name := range slices.Sorted(maps.Keys(next.Clients)) {
		c, was := next.Clients[name], old.Clients[name]
		switch {
		case was == nil:
			say("client %s was added", name)
		case c.Token != was.Token || c.CertName != was.CertName:
			say("client %s has a new token or certificate", name)
		case c.Read != was.Read || c.Write != was.Write || c.Admin != was.Admin || c.MaxPriority != was.MaxPriority || !slices.Equal(c.Tables, was.Tables):
			say("client %s has other rights", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.Clients)) {
		if next.Clients[name] == nil {
			say("client %s was removed", name)
		}
	}
}
