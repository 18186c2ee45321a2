package postgres_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/pgtest"
	"sluice.dev/sluice/internal/store/postgres"
	"sluice.dev/sluice/internal/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Options{URL: "postgres://test", Mapped: true, New: func(t *testing.T) storetest.Database {
		return database(t, pgtest.Shared(t))
	}})
}

// database is a fresh database of a cluster as the suite wants it.
func database(t *testing.T, c *pgtest.Cluster) storetest.Database {
	dsn := c.NewSchema(t)
	return storetest.Database{
		Open: func(t *testing.T, o store.Options) store.Shard {
			o.Shard.URL = dsn
			s, err := postgres.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Exec:  func(t *testing.T, statements ...string) { c.Exec(t, dsn, statements...) },
		Query: func(t *testing.T, query string) string { return c.Query(t, dsn, query) },
		Lock: func(t *testing.T, id int64) func() {
			return lock(t, dsn, fmt.Sprintf("SELECT FROM people WHERE id = %d FOR UPDATE", id))
		},
		CountRows: func(t *testing.T, g *schema.Group) int {
			var n int
			name := g.Physical
			if g.Existing != nil {
				name = g.Existing.Table
			}
			_, err := fmt.Sscan(c.Query(t, dsn, "SELECT count(*) FROM "+name), &n)
			if err != nil {
				t.Fatal(err)
			}
			return n
		},
	}
}

// lock runs a statement in a transaction that stays open until unlock.
func lock(t *testing.T, dsn, sql string) (unlock func()) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"BEGIN", sql} {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	return func() { _ = conn.Close(ctx) }
}
