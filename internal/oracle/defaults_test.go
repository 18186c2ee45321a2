package oracle_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/server"
)

// What a row that is made begins with must not depend on how many writes the
// batch folded: `set` and then `add`, applied one by one or together, are one row.
func TestS11_AMissingRowBeginsTheSameFoldedOrNot(t *testing.T) {
	for name, db := range map[string]target{"postgres": newPostgres(t), "sqlite": newSQLite(t)} {
		t.Run(name, func(t *testing.T) {
			db.prepare(t, []string{`CREATE TABLE pages (id bigint PRIMARY KEY, title text, n bigint NOT NULL DEFAULT 7, high bigint DEFAULT 50)`})
			file := filepath.Join(t.TempDir(), "sluice.yaml")
			text := fmt.Sprintf("listen: {http: \"off\", resp: \"off\"}\njournal: {dir: %q, segment_bytes: 1MiB, disk_reserve: 1MiB}\nstores:\n  main: %s\ntables:\n"+
				"  pages: {existing: {table: pages}, key: {id: int64}, store: main, flush: 1s, columns: {title: text, n: int64 sum, high: int64 max}}\n",
				filepath.Join(filepath.Dir(file), "journal"), db.config())
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			srv, _ := start(t, file)
			var shown []string
			for key, writes := range [][]sluice.Write{
				{{Table: "pages", Set: map[string]any{"title": "x"}}, {Table: "pages", Add: map[string]any{"n": 3}}, {Table: "pages", Max: map[string]any{"high": 9}}},
				{{Table: "pages", Add: map[string]any{"n": 3}}, {Table: "pages", Max: map[string]any{"high": 9}}, {Table: "pages", Set: map[string]any{"title": "x"}}},
				{{Table: "pages", Set: map[string]any{"title": "x"}, Add: map[string]any{"n": 3}, Max: map[string]any{"high": 9}}},
			} {
				for _, together := range []bool{false, true} {
					row := int64(2 * key)
					if together {
						row++
					}
					shown = append(shown, makeRow(t, srv, row, writes, together))
				}
			}
			for _, row := range shown {
				if row != shown[0] {
					t.Fatalf("rows differ by how their writes were folded: %q", shown)
				}
			}
		})
	}
}

// makeRow writes to a key that is not there yet, and gives the row.
func makeRow(t *testing.T, srv *server.Server, key int64, writes []sluice.Write, together bool) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range writes {
		writes[i].Key = key
	}
	step := 1
	if together {
		step = len(writes)
	}
	receipt := ""
	for ; len(writes) > 0; writes = writes[step:] {
		var err error
		if receipt, err = srv.Write(ctx, writes[:step]...); err != nil {
			t.Fatal(err)
		}
		if st, err := srv.Receipt(ctx, receipt, time.Minute); err != nil || st.State != sluice.StateApplied {
			t.Fatalf("%+v %v", st, err)
		}
	}
	row, err := srv.Read(ctx, "pages", key, receipt)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("title %s n %s high %s", row.Columns["title"], row.Columns["n"], row.Columns["high"])
}
