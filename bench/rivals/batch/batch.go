// Package batch is what a good engineer writes by hand in front of PostgreSQL:
// fold the writes of a moment by key, then bring them in with one multi-row
// statement per table, all in one transaction and one round trip. It knows
// nothing of Sluice; the rivals that batch share it.
package batch

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Kind says what a write does.
type Kind byte

// The three kinds of write that every rival is asked for.
const (
	Like  Kind = 'L' // add 1 to a counter of a post
	Event Kind = 'E' // append a row
	Place Kind = 'P' // set a column of a driver
)

// Write is one write. N is the number that an event carries, and what a place is made of.
type Write struct {
	Kind Kind
	Key  uint64
	N    uint64
}

// What an event says.
const What = "a button that was clicked"

// Where is the text of a place; n is below 100,000 and can be read in it again.
func Where(n uint64) string { return fmt.Sprintf("52.%05d,13.%05d", n%100_000, n*7%100_000) }

// Tables are the tables of all rivals that write into a database with SQL.
// The log has an index on its post, as anybody who reads comments would have.
var Tables = []string{
	"CREATE TABLE posts (id bigint PRIMARY KEY, likes bigint NOT NULL)",
	"CREATE TABLE drivers (id bigint PRIMARY KEY, place text)",
	"CREATE TABLE log (seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bigint NOT NULL, what text, n bigint)",
	"CREATE INDEX log_id ON log (id)",
}

// The statements of one write, and of many.
const (
	LikeSQL  = "INSERT INTO posts (id, likes) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET likes = posts.likes + 1"
	EventSQL = "INSERT INTO log (id, what, n) VALUES ($1, $2, $3)"
	PlaceSQL = "INSERT INTO drivers (id, place) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET place = EXCLUDED.place"

	likesSQL  = "INSERT INTO posts (id, likes) SELECT * FROM unnest($1::bigint[], $2::bigint[]) ON CONFLICT (id) DO UPDATE SET likes = posts.likes + EXCLUDED.likes"
	eventsSQL = "INSERT INTO log (id, what, n) SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[])"
	placesSQL = "INSERT INTO drivers (id, place) SELECT * FROM unnest($1::bigint[], $2::text[]) ON CONFLICT (id) DO UPDATE SET place = EXCLUDED.place"
)

// Fold gathers writes until they are applied.
type Fold struct {
	likes, places map[int64]int64
	ids, numbers  []int64
	what          []string
}

// NewFold makes an empty one.
func NewFold() *Fold { return &Fold{likes: map[int64]int64{}, places: map[int64]int64{}} }

// Add takes a write.
func (f *Fold) Add(w Write) {
	switch w.Kind {
	case Like:
		f.likes[int64(w.Key)]++
	case Place:
		f.places[int64(w.Key)] = int64(w.N)
	case Event:
		f.ids, f.numbers, f.what = append(f.ids, int64(w.Key)), append(f.numbers, int64(w.N)), append(f.what, What)
	}
}

// Apply brings everything into the database in one transaction and forgets it.
// The keys are sorted: two transactions that lock rows in the same order cannot
// deadlock, and neighbours in the index are written together.
func (f *Fold) Apply(ctx context.Context, conn *pgx.Conn) error {
	var b pgx.Batch
	if len(f.likes) > 0 {
		ids := slices.Sorted(maps.Keys(f.likes))
		counts := make([]int64, len(ids))
		for i, id := range ids {
			counts[i] = f.likes[id]
		}
		b.Queue(likesSQL, ids, counts)
	}
	if len(f.places) > 0 {
		ids := slices.Sorted(maps.Keys(f.places))
		places := make([]string, len(ids))
		for i, id := range ids {
			places[i] = Where(uint64(f.places[id]))
		}
		b.Queue(placesSQL, ids, places)
	}
	if len(f.ids) > 0 {
		b.Queue(eventsSQL, f.ids, f.what, f.numbers)
	}
	// Without BEGIN the statements of a pipeline are one transaction.
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	clear(f.likes)
	clear(f.places)
	f.ids, f.numbers, f.what = f.ids[:0], f.numbers[:0], f.what[:0]
	return nil
}
