package sqlite

import (
	"database/sql"
	"path/filepath"
	"strconv"
	"testing"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	for _, mode := range []struct {
		name string
		sync bool
	}{{"full", true}, {"normal", false}} {
		t.Run(mode.name, func(t *testing.T) {
			storetest.Run(t, storetest.Options{URL: "sqlite:unused.db", Mapped: true, New: func(t *testing.T) storetest.Database {
				return newDatabase(t, mode.sync)
			}})
		})
	}
}

func newDatabase(t *testing.T, sync bool) storetest.Database {
	path := filepath.Join(t.TempDir(), "app.db")
	other := openOther(t, path)
	return storetest.Database{
		Open: func(t *testing.T, o store.Options) store.Shard {
			o.Shard.URL, o.Store.SynchronousCommit = "sqlite:"+path, sync
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Exec: func(t *testing.T, statements ...string) {
			for _, q := range statements {
				if _, err := other.Exec(q); err != nil {
					t.Fatalf("%s: %v", q, err)
				}
			}
		},
		Query: func(t *testing.T, query string) string {
			var out sql.NullString
			if err := other.QueryRow(query).Scan(&out); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			return out.String
		},
		CountRows: func(t *testing.T, g *schema.Group) int {
			var n int
			if err := other.QueryRow("SELECT count(*) FROM " + strconv.Quote(g.Physical)).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		},
	}
}

// openOther is another program on the same file.
func openOther(t *testing.T, path string) *sql.DB {
	db, err := sql.Open("sqlite", path+"?_busy_timeout=5000&_foreign_keys=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
