package dedup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/vfs"
)

const journalID = 0x1122334455667788

func openTable(t testing.TB, o Options) *Table {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	o.Journal = journalID
	table, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// reopen is what a restart does: the memory is gone.
func reopen(t *testing.T, table *Table) *Table {
	t.Helper()
	if err := table.Close(); err != nil {
		t.Fatal(err)
	}
	return openTable(t, table.o)
}

func keyID(name string, chunk uint64) sluice.Identity {
	return sluice.Identity{Key: name, Chunk: chunk, Format: sluice.ChunkFormat}
}

func producerID(producer, number, lowest uint64) sluice.Identity {
	return sluice.Identity{Producer: producer, Chunk: number, Lowest: lowest, Format: sluice.ChunkFormat}
}

func hashOf(text string) (h [16]byte) {
	copy(h[:], text)
	return h
}

func recordOf(id sluice.Identity, body string, commit uint64) *Record {
	r := &Record{Identity: id, Hash: hashOf(body)}
	r.Receipt = sluice.Receipt{Journal: journalID, Commit: commit, Keys: []uint64{commit * 7}}
	var set sluice.PartitionSet
	set.Add(uint8(commit))
	r.Receipt.Groups = []sluice.ReceiptGroup{{Group: 1, Partitions: set}}
	return r
}

// begin asks and checks the kind of the verdict.
func begin(t testing.TB, table *Table, id sluice.Identity, body string, want Kind) Verdict {
	t.Helper()
	v, err := table.Begin(id, hashOf(body))
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != want {
		t.Fatalf("identity %+v with body %q: %s, want %s", id, body, v.Kind, want)
	}
	return v
}

// accept is a new chunk that becomes durable.
func accept(t testing.TB, table *Table, id sluice.Identity, body string, commit uint64) *Record {
	t.Helper()
	begin(t, table, id, body, New)
	rec := recordOf(id, body, commit)
	table.Done(rec)
	return rec
}

// duplicate checks that the answer is the original's, whole.
func duplicate(t testing.TB, table *Table, original *Record) {
	t.Helper()
	v, err := table.Begin(original.Identity, original.Hash)
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != Duplicate {
		t.Fatalf("identity %+v: %s, want duplicate", original.Identity, v.Kind)
	}
	if !reflect.DeepEqual(*original, v.Record) {
		t.Fatalf("the answer is not the original's (-original +answer):\n%s", cmp.Diff(*original, v.Record))
	}
}

func checkpoint(t testing.TB, table *Table, upTo uint64) {
	t.Helper()
	if err := table.Checkpoint(upTo); err != nil {
		t.Fatal(err)
	}
}

func TestI1_RetryGetsTheOriginalAnswer(t *testing.T) {
	table := openTable(t, Options{})
	rec := accept(t, table, keyID("order-1", 0), "body", 5)
	duplicate(t, table, rec)
	checkpoint(t, table, 5)
	duplicate(t, table, rec)
	duplicate(t, reopen(t, table), rec)
}

func TestI1_RetryWaitsForTheCommitInFlight(t *testing.T) {
	table := openTable(t, Options{})
	id := keyID("order-1", 0)
	begin(t, table, id, "body", New)
	v := begin(t, table, id, "body", InFlight)
	rec := recordOf(id, "body", 5)
	var answer *Record
	var wait sync.WaitGroup
	wait.Go(func() {
		<-v.Wait
		if v, err := table.Begin(id, rec.Hash); err == nil && v.Kind == Duplicate {
			answer = &v.Record
		}
	})
	table.Done(rec)
	wait.Wait()
	if answer == nil || answer.Commit() != 5 {
		t.Fatalf("after the wait: %+v, want the record of commit 5", answer)
	}
}

func TestI1_OneOfManyAtOnceIsNew(t *testing.T) {
	table := openTable(t, Options{})
	accept(t, table, keyID("older", 0), "x", 1)
	checkpoint(t, table, 1) // so that each looks into a file too
	var wait sync.WaitGroup
	kinds := make([]Kind, 16)
	for i := range kinds {
		wait.Go(func() {
			v, err := table.Begin(keyID("same", 0), hashOf("body"))
			if err != nil {
				t.Error(err)
			}
			kinds[i] = v.Kind
		})
	}
	wait.Wait()
	slices.Sort(kinds)
	if kinds[0] != New || kinds[1] != InFlight || kinds[15] != InFlight {
		t.Fatalf("verdicts: %v, want one new and the others in flight", kinds)
	}
}

func TestI2_SameIdentityWithOtherBytesIsRefused(t *testing.T) {
	table := openTable(t, Options{})
	first, _ := table.IssueProducer()
	for _, id := range []sluice.Identity{keyID("k", 0), producerID(first, 1, 1)} {
		rec := accept(t, table, id, "body", 1)
		begin(t, table, id, "other", Mismatch)
		duplicate(t, table, rec)
	}
	checkpoint(t, table, 1)
	begin(t, table, keyID("k", 0), "other", Mismatch)
	begin(t, table, producerID(first, 1, 1), "other", Mismatch)
}

func TestI2_ChunkNumberIsPartOfIdentity(t *testing.T) {
	table := openTable(t, Options{})
	a := accept(t, table, keyID("load", 0), "same bytes", 1)
	b := accept(t, table, keyID("load", 1), "same bytes", 2)
	checkpoint(t, table, 2)
	duplicate(t, table, a)
	duplicate(t, table, b)
	begin(t, table, keyID("load", 2), "same bytes", New)
}

func TestI2_OtherFormatIsNotNew(t *testing.T) {
	table := openTable(t, Options{})
	accept(t, table, keyID("k", 0), "lines 1 to 1000", 1)
	later := keyID("k", 0)
	later.Format = sluice.ChunkFormat + 1
	begin(t, table, later, "lines 1 to 2000", Mismatch)
	v := begin(t, table, later, "lines 1 to 1000", Duplicate)
	if v.Record.Identity.Format != sluice.ChunkFormat {
		t.Fatalf("format %d, want the original's", v.Record.Identity.Format)
	}
}

func TestI2_OutcomesComeBack(t *testing.T) {
	table := openTable(t, Options{})
	id := keyID("k", 0)
	begin(t, table, id, "body", New)
	rec := recordOf(id, "body", 3)
	rec.Outcomes = make([]sluice.Reason, 1000)
	for i := range rec.Outcomes {
		rec.Outcomes[i] = []sluice.Reason{sluice.Accepted, sluice.BadLine, sluice.Overload, sluice.Accepted, sluice.Accepted}[i%5]
	}
	table.Done(rec)
	duplicate(t, table, rec)
	checkpoint(t, table, 3)
	duplicate(t, table, rec)
}

func TestI2_ChunkOfWhichNothingWasAcceptedIsJudgedAnew(t *testing.T) {
	table := openTable(t, Options{})
	first, _ := table.IssueProducer()
	for _, id := range []sluice.Identity{keyID("k", 0), producerID(first, 1, 1)} {
		begin(t, table, id, "body", New)
		v := begin(t, table, id, "body", InFlight)
		table.Abandon(id)
		<-v.Wait
		begin(t, table, id, "better body", New)
	}
}

func TestI3_IdsAreIssuedOnceInOrder(t *testing.T) {
	table := openTable(t, Options{})
	var last uint64
	for round := range 5 {
		for range 100 {
			id, err := table.IssueProducer()
			if err != nil {
				t.Fatal(err)
			}
			if id <= last {
				t.Fatalf("id %d after %d", id, last)
			}
			last = id
		}
		if round%2 == 1 {
			checkpoint(t, table, uint64(round))
		}
		table = reopen(t, table)
	}
}

func TestI3_IssuedIdSurvivesACrashUnused(t *testing.T) {
	table := openTable(t, Options{})
	id, _ := table.IssueProducer()
	table = reopen(t, table)
	begin(t, table, producerID(id, 1, 1), "body", New)
	begin(t, table, producerID(id+1000, 1, 1), "body", Forgotten)
}

func TestI3_JournalBringsBackIdsOfALostFolder(t *testing.T) {
	table := openTable(t, Options{})
	var id uint64
	for range 100 {
		id, _ = table.IssueProducer()
	}
	rec := accept(t, table, producerID(id, 1, 1), "body", 1)
	empty := openTable(t, Options{})
	empty.Replay(rec)
	duplicate(t, empty, rec)
	for range 2 {
		next, err := empty.IssueProducer()
		if err != nil || next <= id {
			t.Fatalf("id %d issued after %d: %v", next, id, err)
		}
		id = next
		empty = reopen(t, empty)
	}
}

func TestI3_WindowFollowsTheLowest(t *testing.T) {
	table := openTable(t, Options{})
	id, _ := table.IssueProducer()
	recs := map[uint64]*Record{}
	for n := uint64(1); n <= 64; n++ {
		recs[n] = accept(t, table, producerID(id, n, 1), "body", n)
	}
	duplicate(t, table, recs[1])
	begin(t, table, producerID(id, 65, 1), "body", BadNumber) // 65 in flight
	begin(t, table, producerID(id, 0, 0), "body", BadNumber)
	begin(t, table, producerID(id, 3, 4), "body", BadNumber)
	accept(t, table, producerID(id, 65, 40), "body", 65)
	begin(t, table, producerID(id, 39, 1), "body", Forgotten) // resolved, said the client
	duplicate(t, table, recs[40])
	if n := len(table.producers.byID[id].done); n != 26 {
		t.Fatalf("%d records kept, want 40 to 65", n)
	}
	checkpoint(t, table, 65)
	table = reopen(t, table)
	duplicate(t, table, recs[40])
	begin(t, table, producerID(id, 39, 1), "body", Forgotten)
	begin(t, table, producerID(id, 66, 40), "body", New)
}

func TestI3_IdleProducerIsForgottenAndRefused(t *testing.T) {
	day := 24 * time.Hour
	table := openTable(t, Options{})
	idle, _ := table.IssueProducer()
	used, _ := table.IssueProducer()
	accept(t, table, producerID(idle, 1, 1), "body", 1)
	table.Advance(20 * day)
	rec := accept(t, table, producerID(used, 1, 1), "body", 2)
	table.Advance(31 * day)
	checkpoint(t, table, 2)
	for range 2 {
		begin(t, table, producerID(idle, 2, 1), "body", Forgotten)
		duplicate(t, table, rec)
		if id, _ := table.IssueProducer(); id <= used {
			t.Fatalf("id %d issued again", id)
		}
		table = reopen(t, table)
	}
}

func TestI3_ProducersAreBounded(t *testing.T) {
	table := openTable(t, Options{ProducersMax: 2, ProducerBytesMax: 100})
	id, _ := table.IssueProducer()
	table.IssueProducer()
	if _, err := table.IssueProducer(); !errors.Is(err, ErrProducersMax) {
		t.Fatalf("third producer: %v", err)
	}
	accept(t, table, producerID(id, 1, 1), "body", 1)
	rec := accept(t, table, producerID(id, 2, 1), "body", 1)
	begin(t, table, producerID(id, 3, 1), "body", Full)
	duplicate(t, table, rec)
	begin(t, table, producerID(id, 3, 2), "body", New) // resolving one makes room
}

func TestI4_FullRefusesNewKeysAndForgetsNone(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{{"on disk", Options{BytesMax: 3000}}, {"in memory", Options{RecentBytesMax: 3000}}} {
		t.Run(c.name, func(t *testing.T) {
			table := openTable(t, c.o)
			var recs []*Record
			for i := 0; ; i++ {
				id := keyID(fmt.Sprint("key-", i), 0)
				if v, err := table.Begin(id, hashOf("body")); err != nil || v.Kind == Full {
					break
				}
				recs = append(recs, recordOf(id, "body", uint64(i+1)))
				table.Done(recs[i])
				if i > 1000 {
					t.Fatal("never full")
				}
			}
			for _, rec := range recs {
				duplicate(t, table, rec)
			}
			producer, _ := table.IssueProducer()
			begin(t, table, producerID(producer, 1, 1), "body", New) // has its own room
			checkpoint(t, table, uint64(len(recs)))
			want := New
			if c.name == "on disk" {
				want = Full
			}
			begin(t, table, keyID("another", 0), "body", want)
			for _, rec := range recs {
				duplicate(t, table, rec)
			}
		})
	}
}

func TestI4_WindowIsJournalTime(t *testing.T) {
	table := openTable(t, Options{Window: 24 * time.Hour})
	rec := accept(t, table, keyID("k", 0), "body", 1)
	checkpoint(t, table, 1)
	for range 10 { // ten starts that each run for two hours: the journal is 20 hours old
		table = reopen(t, table)
		table.Advance(0) // a journal that does not know its time yet
		table.Advance(table.Now() + 2*time.Hour)
		checkpoint(t, table, 1)
		duplicate(t, table, rec)
	}
	table.Advance(table.Now() + 7*time.Hour)
	checkpoint(t, table, 1)
	begin(t, table, keyID("k", 0), "body", New)
	if s := table.Stats(); s.Files != 0 || s.Bytes != 0 {
		t.Fatalf("after the window: %+v", s)
	}
}

func TestI4_ReplayIsIdempotent(t *testing.T) {
	table := openTable(t, Options{})
	producer, _ := table.IssueProducer()
	recs := []*Record{
		accept(t, table, keyID("a", 0), "a", 1),
		accept(t, table, producerID(producer, 1, 1), "b", 2),
	}
	checkpoint(t, table, 2)
	recs = append(recs,
		accept(t, table, keyID("c", 0), "c", 3),
		accept(t, table, producerID(producer, 2, 1), "d", 4),
	)
	table = reopen(t, table)
	if got := table.Through(); got != 2 {
		t.Fatalf("through %d, want 2", got)
	}
	for range 2 {
		for _, rec := range recs {
			table.Replay(rec)
		}
	}
	for _, rec := range recs {
		duplicate(t, table, rec)
	}
	if s := table.Stats(); s.Keys != 2 {
		t.Fatalf("%d keys, want 2", s.Keys)
	}
}

func TestI4_CheckpointWaitsForWhatIsOnItsWay(t *testing.T) {
	table := openTable(t, Options{})
	id := keyID("k", 0)
	begin(t, table, id, "body", New)
	checkpoint(t, table, 7) // commit 7 is durable and holds it, Done is still to come
	if got := table.Through(); got != 6 {
		t.Fatalf("through %d: commit 7 would not be replayed", got)
	}
	rec := recordOf(id, "body", 7)
	table.Done(rec)
	table = reopen(t, table)
	table.Replay(rec)
	duplicate(t, table, rec)
}

func TestI4_CheckpointGoesBesideBegin(t *testing.T) {
	table := openTable(t, Options{})
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := range 300 {
				id := keyID(fmt.Sprint(worker, "-", i), 0)
				if v, err := table.Begin(id, hashOf("x")); err != nil || v.Kind != New {
					t.Errorf("%+v: %v %v", id, v.Kind, err)
				}
				table.Done(recordOf(id, "x", 1))
				if v, err := table.Begin(id, hashOf("x")); err != nil || v.Kind != Duplicate {
					t.Errorf("%+v again: %v %v", id, v.Kind, err)
				}
			}
		})
	}
	for i := range 20 {
		checkpoint(t, table, uint64(i))
	}
	wait.Wait()
	if s := table.Stats(); s.Keys != 1200 || s.InFlight != 0 {
		t.Fatalf("%+v, want 1200 keys and nothing in flight", s)
	}
}

func TestDamageIsFoundAndNamed(t *testing.T) {
	table := openTable(t, Options{})
	producer, _ := table.IssueProducer()
	for i := range 300 {
		accept(t, table, keyID(fmt.Sprint(i), 0), "body", 1)
	}
	accept(t, table, producerID(producer, 1, 1), "body", 1)
	checkpoint(t, table, 1)
	files, err := os.ReadDir(table.o.Dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("files: %v %v", files, err)
	}
	for _, f := range files {
		path := filepath.Join(table.o.Dir, f.Name())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := len(sortedMagic); at < len(whole); at += 97 { // the magic at the start is for people
			bad := slices.Clone(whole)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			err := readEverything(table.o)
			var damaged *DamagedError
			if !errors.As(err, &damaged) && !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), f.Name()) {
				t.Fatalf("%s with a flipped bit at %d: %v", f.Name(), at, err)
			}
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := readEverything(table.o); err != nil {
		t.Fatal(err)
	}
}

func readEverything(o Options) error {
	table, err := Open(o)
	if err != nil {
		return err
	}
	defer table.Close()
	for i := range 300 {
		if _, err := table.Begin(keyID(fmt.Sprint(i), 0), hashOf("body")); err != nil {
			return err
		}
	}
	return nil
}

func TestNewerFormatsAreRefusedByName(t *testing.T) {
	data := AppendRecord(nil, recordOf(keyID("k", 0), "b", 1))
	data[0] = recordVersion + 1
	if _, _, err := DecodeRecord(data); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("record: %v", err)
	}
	table := openTable(t, Options{})
	checkpoint(t, table, 1)
	path := filepath.Join(table.o.Dir, manifestName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(text), "manifest 1 ", "manifest 2 ", 1)
	if err := os.WriteFile(path, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(table.o); !errors.Is(err, ErrNewerFormat) {
		t.Fatalf("manifest: %v", err)
	}
}
