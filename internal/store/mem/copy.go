package mem

import "maps"

// Copy is what a replica or a backup has of the database at this moment, all of
// it durable. Hooks stay behind; the two share nothing that either changes.
func (d *Database) Copy() *Database {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := &Database{Now: d.Now, identity: d.identity, cursors: maps.Clone(d.cursors), rejects: maps.Clone(d.rejects),
		parked: maps.Clone(d.parked), tables: maps.Clone(d.tables)}
	for id, t := range next.tables {
		next.tables[id] = &table{rows: maps.Clone(t.rows), events: maps.Clone(t.events)}
	}
	return next
}
