package node_test

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/node"
	"sluice.dev/sluice/internal/store/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// dial gives a client that waits out what passes by itself.
func dial(t *testing.T, n *node.Node) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: "http://" + n.HTTPAddr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// once gives a client that takes the first answer.
func once(t *testing.T, n *node.Node) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: "http://" + n.HTTPAddr(), RetryBudget: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func add(table string, key int64, column string, amount int) sluice.Write {
	return sluice.Write{Table: table, Key: key, Add: map[string]any{column: amount}}
}

// applied writes and waits until the database has it.
func applied(t *testing.T, c *client.Client, w sluice.Write) client.Accepted {
	t.Helper()
	a, err := c.WriteMany(t.Context(), []sluice.Write{w}, client.WriteOptions{Wait: 30 * time.Second})
	if err != nil || a.State != sluice.StateApplied {
		t.Fatalf("%+v: %+v, %v", w, a, err)
	}
	return a
}

// durable writes and does not wait for the database.
func durable(t *testing.T, c *client.Client, w sluice.Write) client.Accepted {
	t.Helper()
	a, err := c.WriteMany(t.Context(), []sluice.Write{w}, client.WriteOptions{})
	if err != nil {
		t.Fatalf("%+v: %v", w, err)
	}
	return a
}

// row gives a row's columns as text.
func row(t *testing.T, c *client.Client, table string, key int64) map[string]string {
	t.Helper()
	r, err := c.ReadMany(t.Context(), table, []any{key}, client.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, v := range r[0].Columns {
		out[name] = string(v)
	}
	return out
}

// change writes the config anew; DIR is its folder.
func change(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", filepath.Dir(file))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// until waits for something that comes by itself.
func until(t *testing.T, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// lock holds a SQLite file's write lock until the function given back is called:
// a database that takes nothing for a while.
func lock(t *testing.T, file string) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	released := false
	release = func() {
		if !released {
			released = true
			_, _ = conn.ExecContext(context.Background(), "ROLLBACK")
			_ = conn.Close()
			_ = db.Close()
		}
	}
	t.Cleanup(release)
	return release
}

// ask runs a query on a SQLite file and gives its one value.
func ask(t *testing.T, file, query string) string {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var v any
	if err := db.QueryRow(query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return fmt.Sprint(v)
}

// exec runs statements on a SQLite file.
func exec(t *testing.T, file string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(20000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
