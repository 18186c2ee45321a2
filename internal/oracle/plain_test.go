package oracle_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/store/pgtest"
	"sluice.dev/sluice/server"
)

// plain is a database that only plain SQL writes to, and what it refused.
type plain struct {
	*postgresDB
	conn          *pgx.Conn
	refused       map[string]uint64                     // by table and key
	seen          map[string]map[string]map[string]bool // unique columns: column, key, elements
	refusedWrites int
}

// newPlain makes the tables by hand.
func newPlain(t *testing.T) *plain {
	t.Helper()
	p := &plain{postgresDB: &postgresDB{cluster: pgtest.Shared(t)}, refused: map[string]uint64{}, seen: map[string]map[string]map[string]bool{}}
	p.shards = []string{p.cluster.NewDatabase(t)}
	p.prepare(t, append(slices.Clone(existing),
		`CREATE SEQUENCE events`,
		`CREATE TABLE posts_content (id bigint PRIMARY KEY, title text, doc jsonb, tags text[], at timestamptz, day date, ref uuid, ok boolean, score double precision, raw bytea, sluice_slot int)`,
		`CREATE TABLE posts_metrics (id bigint PRIMARY KEY, likes bigint NOT NULL DEFAULT 0, cost numeric NOT NULL DEFAULT 0, high bigint, low numeric, seen timestamptz, sluice_slot int)`,
		`CREATE TABLE posts_clicks (id bigint, what text, n bigint, sluice_slot int, sluice_commit bigint, sluice_ordinal int)`,
		`CREATE TABLE timeline (user_id bigint, post text, note text, hits bigint NOT NULL DEFAULT 0, sluice_slot int, PRIMARY KEY (user_id, post))`,
		`CREATE TABLE cars (id text PRIMARY KEY, place text, speed bigint, at bigint, sluice_slot int)`))
	var err error
	if p.conn, err = pgx.Connect(t.Context(), p.shards[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close(context.Background()) })
	return p
}

// apply runs each write's statements and says whether any was refused.
func (p *plain) apply(t *testing.T, writes []sluice.Write) bool {
	t.Helper()
	refused := false
	for i := range writes {
		w := &writes[i]
		p.count(w)
		for _, s := range statements(w) {
			if !p.exec(t, &s) {
				refused = true
				p.refusedWrites++
				p.refused[s.group.table+" "+keyText(w.Key)]++
			}
		}
	}
	return refused
}

// exec runs one statement; false: the database refused it, or it met no row.
func (p *plain) exec(t *testing.T, s *statement) bool {
	t.Helper()
	tag, err := p.conn.Exec(t.Context(), s.sql, s.args...)
	var refusal *pgconn.PgError
	switch {
	case errors.As(err, &refusal) && refusal.Code[:2] == "23":
		return false
	case err != nil:
		t.Fatalf("%s %v: %v", s.sql, s.args, err)
	case tag.RowsAffected() == 0 && s.orElse != nil:
		return p.exec(t, s.orElse)
	}
	return tag.RowsAffected() > 0 || !s.must
}

// count keeps the sets that unique columns estimate.
func (p *plain) count(w *sluice.Write) {
	key := w.Table + " " + keyText(w.Key)
	if w.Delete {
		for _, byKey := range p.seen {
			delete(byKey, key)
		}
	}
	for name, element := range w.Unique {
		if p.seen[name] == nil {
			p.seen[name] = map[string]map[string]bool{}
		}
		if p.seen[name][key] == nil {
			p.seen[name][key] = map[string]bool{}
		}
		p.seen[name][key][fmt.Sprint(element)] = true
	}
}

// receipts compares what a receipt says with what became of the statements. A
// receipt names keys, so what another request did to the same keys in the same
// commit shows in it too: without a refusal of its own only the keys that were
// never refused are looked at.
func (p *plain) receipts(ctx context.Context, t *testing.T, srv *server.Server, a *asked, refused bool) {
	t.Helper()
	st, err := srv.Receipt(ctx, a.receipt, 0)
	if err != nil {
		t.Fatal(err)
	}
	clean := len(a.writes) <= sluice.ReceiptKeysMax/3 && !slices.ContainsFunc(a.writes, func(w sluice.Write) bool {
		return slices.Contains([]string{"old", "stock", "boxes", "orders"}, w.Table)
	})
	switch {
	case refused && st.State != sluice.StateRejected:
		t.Errorf("a write of this request is refused, its receipt says %s: %+v", st.State, a.writes)
	case clean && st.State != sluice.StateApplied:
		t.Errorf("nothing of this request can be refused, its receipt says %s: %+v", st.State, a.writes)
	}
}

// compareRejects: each refused statement is a reject, and no other is.
func (p *plain) compareRejects(ctx context.Context, t *testing.T, srv *server.Server) {
	t.Helper()
	c, err := client.New(client.Options{URL: "http://" + srv.HTTPAddr()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.Rejects(ctx, client.RejectsQuery{State: "open", Max: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for i := range list {
		got[list[i].Table+" "+sameJSON(string(list[i].Key))] += uint64(list[i].Writes)
	}
	for key, n := range p.refused {
		if got[key] != n {
			t.Errorf("%s: %d plain statements were refused, %d writes are rejects", key, n, got[key])
		}
	}
	for key, n := range got {
		if p.refused[key] == 0 {
			t.Errorf("%s: %d writes are rejects, and no plain statement was refused", key, n)
		}
	}
	rows, err := c.Ledger(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if row.Acked != row.Applied+row.Rejected || row.Queued+row.Lost+row.Expired != 0 {
			t.Errorf("R2: ledger after the drain: %+v", row)
		}
	}
}

// compareEstimates allows four standard errors of the sketch.
func (p *plain) compareEstimates(t *testing.T, db target) {
	t.Helper()
	for name, byKey := range p.seen {
		got := db.estimates(t, specs[1], name)
		for key, set := range byKey {
			want := int64(len(set))
			if off := got[key] - want; math.Abs(float64(off)) > max(1, float64(want)*0.065) {
				t.Errorf("%s of %s: estimate %d, exact %d", name, key, got[key], want)
			}
		}
	}
}
