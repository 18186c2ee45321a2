package decay_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/pgtest"
	"sluice.dev/sluice/internal/store/postgres"
)

// drained counts what a real PostgreSQL gets for batches of so many writes each.
func drained(t *testing.T, load string, writes int) []figure {
	const warm, batches = 3, 10
	cluster := pgtest.Shared(t)
	dsn := cluster.NewDatabase(t)
	w := newWire(t, cluster.Port)
	l := newLine(t)
	shard := l.addShard(strings.Replace(dsn, ":"+strconv.Itoa(cluster.Port)+"/", ":"+strconv.Itoa(w.port())+"/", 1))
	for range warm {
		l.submit(load, writes)
		l.drain()
	}
	before := w.counts()
	for range batches {
		l.submit(load, writes)
		l.drain()
	}
	c := w.counts().minus(before)
	_ = shard.Close() // its counts of rows are there when its connections are gone
	rows := rowsOf(t, cluster, dsn)
	all := float64(batches * writes)
	return []figure{{"statements per write", float64(c.statements) / all}, {"statements per batch", float64(c.statements) / batches},
		{"round trips per batch", float64(c.trips) / batches},
		{"rows per write", float64(rows.tables) / float64((warm+batches)*writes)},
		{fmt.Sprintf("rows of Sluice's own for %d batches and two drainers that take", warm+batches), float64(rows.own)}}
}

// addShard opens the database and adds the drainers of all groups.
func (l *line) addShard(url string) *postgres.Shard {
	l.t.Helper()
	st := l.schema.Stores["main"]
	conf := schema.Shard{Name: schema.ShortShard, URL: url}
	shard, err := postgres.Open(store.Options{Store: st, Shard: conf, Warn: func(w string) { l.t.Log(w) }})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = shard.Close() })
	if err := shard.Ensure(l.t.Context(), store.Identity{Journal: l.journal.ID(), Store: "main", Shard: conf.Name}, l.schema.Groups()); err != nil {
		l.t.Fatal(err)
	}
	for _, g := range l.schema.Groups() {
		l.drains.Add(pipeline.NewDrainer(g, pipeline.DrainerOptions{Journal: l.journal, Shard: shard, Store: st, ShardName: conf.Name, Partitions: *allPartitions(),
			Lookup: l.schema.Group, Remember: func() error { return nil }, AcceptedGap: func() uint64 { return 0 }, Now: func() time.Time { return l.now }}))
	}
	return shard
}

const stepsMax = 100 // for one batch: far more than it takes

// drain asks for the flush and steps until the database has everything.
func (l *line) drain() {
	l.t.Helper()
	head := l.journal.Head().Number
	for _, d := range l.drains.All() {
		d.Flush(head)
		for steps := 0; !d.Through(head, l.journal.Streams()); steps++ {
			if _, err := d.Step(l.t.Context()); err != nil || steps == stepsMax {
				l.t.Fatalf("%s: step %d: %v", d.Group().FullName(), steps, err)
			}
		}
	}
}

type rowCounts struct{ tables, own int64 }

// rowsOf reads PostgreSQL's own counts of changed rows once no connection of
// the shard is left: a server process hands its counts in when it ends.
func rowsOf(t *testing.T, c *pgtest.Cluster, dsn string) (r rowCounts) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for c.Query(t, dsn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'sluice'") != "0" {
		if ctx.Err() != nil {
			t.Fatal("connections of the shard are left")
		}
	}
	got := c.Query(t, dsn, `SELECT coalesce(sum(n) FILTER (WHERE NOT own), 0), coalesce(sum(n) FILTER (WHERE own), 0)
		FROM (SELECT n_tup_ins + n_tup_upd + n_tup_del AS n, relname LIKE 'sluice\_%' AS own FROM pg_stat_user_tables WHERE relname <> 'sluice_meta') AS t`)
	if _, err := fmt.Sscanf(got, "%d|%d", &r.tables, &r.own); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	return r
}

// wire stands between the shard and PostgreSQL and counts what is asked: it
// sees what every driver must send, so no code is changed for the count.
type wire struct {
	t                 *testing.T
	ln                net.Listener
	to                string
	statements, trips atomic.Int64
}

type wireCounts struct{ statements, trips int64 }

func (w *wire) counts() wireCounts {
	return wireCounts{w.statements.Load(), w.trips.Load()}
}

func (c wireCounts) minus(o wireCounts) wireCounts {
	return wireCounts{c.statements - o.statements, c.trips - o.trips}
}

func newWire(t *testing.T, port int) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{t: t, ln: ln, to: "127.0.0.1:" + strconv.Itoa(port)}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { w.carry(client) })
		}
	})
	t.Cleanup(func() { _ = ln.Close(); conns.Wait() })
	return w
}

func (w *wire) port() int { return w.ln.Addr().(*net.TCPAddr).Port }

func (w *wire) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", w.to)
	if err != nil {
		w.t.Error(err)
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	})
	_ = w.ask(server, bufio.NewReader(client)) // ends with either connection
	_ = server.Close()
	back.Wait()
}

// ask hands on the client's messages and counts them. The first has no type.
func (w *wire) ask(server io.Writer, client *bufio.Reader) error {
	head := 4
	for {
		top, err := client.Peek(head)
		if err != nil {
			return err
		}
		message := make([]byte, head-4+int(binary.BigEndian.Uint32(top[head-4:])))
		if _, err := io.ReadFull(client, message); err != nil {
			return err
		}
		if head == 5 {
			w.count(message[0], message[5:])
		}
		head = 5
		if _, err := server.Write(message); err != nil {
			return err
		}
	}
}

// count knows Query and Execute, which are statements, and Query and Sync,
// which are what a client waits for.
func (w *wire) count(kind byte, body []byte) {
	switch kind {
	case 'Q':
		if bytes.HasPrefix(body, []byte("-- ping")) {
			return // of the pool, when a connection was unused for a second: timing
		}
		w.statements.Add(1)
		w.trips.Add(1)
	case 'E':
		w.statements.Add(1)
	case 'S':
		w.trips.Add(1)
	case 'P', 'B', 'C', 'D', 'H', 'd', 'c', 'X', 'p':
		// Parse, Bind, Close, Describe, Flush and the data of COPY ride along.
	default:
		w.t.Errorf("a message %q that is not known here", kind)
	}
}
