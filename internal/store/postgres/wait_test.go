package postgres_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/store"
)

// receiptOf names the streams and keys of a batch, as the pipeline would.
func (b *bench) receiptOf(batch *store.Batch) *sluice.Receipt {
	r := &sluice.Receipt{Journal: binary.BigEndian.Uint64(testID.Journal[:8]), Commit: batch.Next.Commit}
	g := sluice.ReceiptGroup{Group: batch.Group.ID}
	for i := range batch.Entries {
		g.Partitions.Add(batch.Entries[i].Partition())
		r.Keys = append(r.Keys, sluice.KeyHash(batch.Group.ID, batch.Entries[i].Key))
	}
	r.Groups = []sluice.ReceiptGroup{g}
	return r
}

func (b *bench) waited(r *sluice.Receipt, timeout, answer string) {
	b.Helper()
	b.want("SELECT sluice_wait('"+r.String()+"', '"+timeout+"')", answer)
}

func TestR1_SluiceWaitComparesWithTheOwnersRow(t *testing.T) {
	b := things(t).start()
	batch := b.batch("things", `"key":1,"add":{"n":1}`, `"key":2,"add":{"n":1}`)
	r := b.receiptOf(batch)
	b.waited(r, "0", "f")
	// What stands in other groups or partitions is of no matter.
	p, q := batch.Entries[0].Partition(), batch.Entries[1].Partition()
	batch.Next.Except = map[uint8]uint64{p: 0, p ^ 1: 7}
	if p^1 == q {
		t.Fatal("the keys lie in neighbouring partitions: choose others")
	}
	if _, err := b.try(batch); err != nil {
		t.Fatal(err)
	}
	b.waited(r, "0", "f")
	only := *r
	only.Groups = []sluice.ReceiptGroup{{Group: r.Groups[0].Group}}
	only.Groups[0].Partitions.Add(q)
	b.waited(&only, "0", "t")
	only.Groups = append(only.Groups, sluice.ReceiptGroup{Group: 4000, Partitions: sluice.AllPartitions}) // kept elsewhere
	b.waited(&only, "0", "t")
	next := b.batch("things", `"key":3,"add":{"n":1}`)
	next.Next.Except = nil
	if _, err := b.try(next); err != nil {
		t.Fatal(err)
	}
	b.waited(r, "0", "t")
	all := *r
	all.Groups = []sluice.ReceiptGroup{{Group: r.Groups[0].Group, Partitions: sluice.AllPartitions}} // as a bitmap
	b.waited(&all, "0", "t")
	all.Commit += 5
	b.waited(&all, "10ms", "f")
}

func TestR1_SluiceWaitCountsParkedAsQueued(t *testing.T) {
	b := things(t, "INSERT INTO things VALUES (1, 0), (2, 0)").start()
	unlock := lock(t, b.dsn, "SELECT FROM things WHERE id = 1 FOR UPDATE")
	batch := b.batch("things", `"key":1,"add":{"n":1}`, `"key":2,"add":{"n":1}`)
	r := b.receiptOf(batch)
	if _, err := b.try(batch); err != nil {
		t.Fatal(err)
	}
	b.waited(r, "0", "f")
	other := *r
	other.Keys = r.Keys[1:]
	b.waited(&other, "0", "t")
	many := *r
	many.Keys = nil // more than 16 keys: all of these streams count
	b.waited(&many, "0", "f")
	unlock()
	b.until("SELECT count(*) FROM pg_locks WHERE relation = 'things'::regclass", "0")
	b.unpark("things", 10)
	b.waited(r, "0", "t")
}

func TestR1_SluiceWaitRefuses(t *testing.T) {
	b := things(t).start()
	r := b.receiptOf(b.batch("things", `"key":1,"add":{"n":1}`))
	conn := connect(t, b.dsn)
	fails := func(sql, words string) {
		t.Helper()
		if _, err := conn.Exec(b.ctx, sql); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want %q", sql, err, words)
		}
	}
	fails("SELECT sluice_wait('nonsense')", "not a receipt of Sluice")
	fails("SELECT sluice_wait('"+r.String()[:20]+"')", "not a receipt of Sluice")
	foreign := *r
	foreign.Journal++
	fails("SELECT sluice_wait('"+foreign.String()+"')", "another journal")
	elsewhere := *r
	elsewhere.Groups = []sluice.ReceiptGroup{{Group: 4000, Partitions: sluice.AllPartitions}}
	fails("SELECT sluice_wait('"+elsewhere.String()+"')", "nothing of this receipt")
	fails("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT sluice_wait('"+r.String()+"')", "READ COMMITTED")
}

// A waiter that may do nothing else asks for a flush, and sees it happen
// within its one statement.
func TestR1_SluiceWaitFlushesAtOnce(t *testing.T) {
	b := things(t, "DROP ROLE IF EXISTS waiter", "CREATE ROLE waiter LOGIN").start()
	batch := b.batch("things", `"key":1,"add":{"n":1}`)
	receipt := b.receiptOf(batch).String()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	asked, listened := make(chan []sluice.GroupID, 1), make(chan error, 1)
	go func() {
		listened <- b.shard.Listen(ctx, func(groups []sluice.GroupID) { asked <- groups })
	}()
	conn := connect(t, strings.Replace(b.dsn, "postgres@", "waiter@", 1))
	seen := make(chan bool, 1)
	go func() {
		var ok bool
		if err := conn.QueryRow(b.ctx, "SELECT sluice_wait('"+receipt+"', '20s')").Scan(&ok); err != nil {
			t.Error(err)
		}
		seen <- ok
	}()
	if groups := <-asked; !slices.Contains(groups, batch.Group.ID) {
		t.Errorf("asked to flush %v, want group %d", groups, batch.Group.ID)
	}
	if _, err := b.try(batch); err != nil {
		t.Fatal(err)
	}
	if !<-seen {
		t.Error("sluice_wait answered false though the write is there")
	}
	cancel()
	if err := <-listened; !errors.Is(err, context.Canceled) {
		t.Errorf("Listen ended with %v", err)
	}
}
