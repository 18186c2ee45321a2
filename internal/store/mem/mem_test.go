package mem_test

import (
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
	"sluice.dev/sluice/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Options{URL: "sqlite:unused.db", Mapped: true, New: func(t *testing.T) storetest.Database {
		db := &mem.Database{}
		locked := map[string]bool{}
		hooks := mem.Hooks{
			Refuse: people,
			Locked: func(g *schema.Group, key []byte) bool { return g.Physical == "people" && locked[string(key)] },
		}
		db.SetHooks(hooks)
		return storetest.Database{
			Open: func(t *testing.T, o store.Options) store.Shard { return db.Open(o) },
			Lock: func(t *testing.T, id int64) func() {
				key := string(intKey(id))
				locked[key] = true
				return func() { delete(locked, key) }
			},
			CountRows: func(t *testing.T, g *schema.Group) int { return db.Rows(g) },
		}
	}})
}

// people refuses what the constraints of storetest.MappedSQL would.
func people(g *schema.Group, _ []byte, row []sluice.Value) *store.Refusal {
	if g.Physical != "people" {
		return nil
	}
	name := row[g.Column([]byte("name")).Index]
	switch {
	case name.Kind == sluice.Null:
		return &store.Refusal{SQLState: "23502", Reason: "name is null"}
	case len(name.Bytes) > 10:
		return &store.Refusal{SQLState: "23514", Reason: "name is too long"}
	}
	return nil
}

func intKey(id int64) []byte {
	t := &schema.Table{Key: []schema.KeyColumn{{Name: "id", Type: schema.Type{Kind: sluice.Int64}}}}
	k, _ := t.AppendKey(nil, []sluice.Value{sluice.IntValue(id)})
	return k
}
