// Package schema is the config: what tables there are, how each column merges,
// where it is kept, and the limits. It reads and checks the config as a whole,
// gives stable ids (the catalog), and turns what clients say into entries. It
// never touches a database, a journal or the network.
package schema

import (
	"time"

	"sluice.dev/sluice"
)

// Merge says how two writes to one column merge. It is part of the catalog and
// never changes for a column id.
type Merge uint8

// The merges.
const (
	Set Merge = iota // last write in journal order
	Sum
	Max
	Min
	Unique // HyperLogLog; an estimate column beside the sketch
)

// Type is a column's type.
type Type struct {
	Kind   sluice.Kind // Int64 ... Native
	Native string      // NAME of native(NAME)
}

// Column is one column of a group.
type Column struct {
	ID       sluice.ColumnID
	Name     string // as clients say it
	Physical string // as the database says it; a unique column also has Physical+"_hll"
	Type     Type   // for unique: the type of the elements; the database holds int64 and bytes
	Merge    Merge
	Inexact  bool // a float64 sum
	Index    int  // position in Group.Columns
	Dropped  bool // in the catalog only: doors do not know it any more

	group *Group
	at    position
}

// KeyColumn is one column of a table's key.
type KeyColumn struct {
	Name     string
	Physical string
	Type     Type

	at position
}

// Existing says that a group writes into a table that was there before.
type Existing struct {
	Table        string     `json:"table"` // schema-qualified name as written, checked, not yet quoted
	MissingRow   MissingRow `json:"missing_row"`
	OtherWriters bool       `json:"other_writers,omitempty"` // programs other than Sluice write to it too
	DeleteRow    bool       `json:"delete_row,omitempty"`    // `delete: row`: a delete removes the row, else it sets the group's columns to their defaults
}

// MissingRow says what becomes of a change to a row that is not there.
type MissingRow uint8

// What a missing row means.
const (
	MissingInsert MissingRow = iota
	MissingReject
)

// Group is the columns of a table that share a store, a flush interval and a
// priority. A flat table has one group with the empty name.
type Group struct {
	ID         sluice.GroupID
	Name       string
	Table      *Table
	Store      string
	Events     bool    // `kind: events`: rows are appended and never folded
	LatestBy   *Column // nil, or the column whose highest value wins the whole row
	Flush      time.Duration
	Priority   string    // critical, high, normal, low
	Columns    []*Column // those that doors know first, then dropped ones; Live gives the first
	Physical   string    // name of the physical table in the store
	Existing   *Existing // nil: the table is Sluice's own
	OnOverload []OverloadStep
	Dropped    bool

	byName map[string]*Column
	byID   []*Column // by ColumnID; nil where there is none
	at     position
}

// OverloadStep is one step of on_overload. Exactly one field is set.
type OverloadStep struct {
	Flush  time.Duration
	Sample float64 // 0..1
	Thin   time.Duration
	Refuse bool
}

// Table is a table of the config.
type Table struct {
	ID          sluice.TableID
	Name        string
	Key         []KeyColumn
	PartitionBy []int // indexes into Key whose values choose the slot; all of Key when the config says nothing
	Groups      []*Group

	columns map[string]*Column // of the groups that are not events: names are distinct across them
	groups  map[string]*Group
	at      position
}

// Store is one kind of database with one or more shards.
type Store struct {
	Name   string
	Driver string  // sqlite, postgres, mem
	Shards []Shard // sorted by name
	DDL    string  // auto, print, off
	// SynchronousCommit is on or off (PostgreSQL); for SQLite off means synchronous=NORMAL.
	SynchronousCommit bool
	ConnsMax          int // `max_conns`, per shard
	// Batch limits of the drain.
	BatchRowsMax  int           // `batch_rows`, default 10,000
	BatchBytesMax int           // `batch_bytes`, default 8 MiB
	BatchTimeMax  time.Duration // `batch_time`, default 2s: the batch shrinks when an apply takes longer
	LockTimeout   time.Duration // `lock_timeout`, default 200ms
	ParkedMax     int           // `parked_max`, entries per partition, default 10,000
	RejectsMax    int           // `rejects_max`, open rejects per stream, default 10,000
	FKWait        time.Duration // `fk_wait`, default 30s
	AllowDups     bool          // `allow_duplicates`

	at position
}

// Shard is one database of a store.
type Shard struct {
	Name string
	URL  string // may hold a password: never printed; use Redacted
}

// Client is a named client of the doors.
type Client struct {
	Name        string
	Token       string // "" when it comes with a certificate
	CertName    string // `cert`: common name of its certificate
	Read, Write bool
	Admin       bool     // rejects, reload, metrics
	Tables      []string // nil: all
	MaxPriority string
}

// Listen says where the doors are.
type Listen struct {
	HTTP     string // default 127.0.0.1:7070; "" or "off" closes the door
	RESP     string // default 127.0.0.1:7071
	CertFile string
	KeyFile  string
	ClientCA string // asks for client certificates
}

// Limits of the doors and of the group commit. All have defaults; see Defaults.
type Limits struct {
	RequestBytesMax   int64         // `request_bytes`, of a body that is not streamed, 8 MiB
	LineBytesMax      int           // `line_bytes`, 1 MiB
	KeyBytesMax       int           // 1 KiB; a constant of the format, not configured
	ValueBytesMax     int           // `value_bytes`, 1 MiB
	JSONDepthMax      int           // 64; not configured
	BatchWritesMax    int           // `batch_writes`, of an array, 1,000
	ConnsMax          int           // `connections`, 10,000
	ReadTimeout       time.Duration // `read_timeout`, of a request's head and of a silent body, 30s
	IdleTimeout       time.Duration // `idle_timeout`, 5m
	WaitMax           time.Duration // `wait_max`, of ?wait=, 60s
	MemoryMax         int64         // `memory`, of open commits, waiting requests and drain batches, 256 MiB
	CommitBytesMax    int           // `commit_bytes`, 4 MiB
	CommitEntriesMax  int           // `commit_entries`, 10,000
	CommitWritesMax   int           // `commit_writes`, 1,000,000 writes folded into one commit
	PipelineMax       int           // `pipeline`, RESP commands taken into one chunk, 1,000
	DrainDeadline     time.Duration // `stop_drain`, at SIGTERM, 10s
	SkewMax           time.Duration // `skew_max`, 1m
	MultiReadKeysMax  int           // `read_keys`, 1,000
	ReceiptWaitersMax int           // `waiters`, 10,000
}

// Journal is the config of the journal.
type Journal struct {
	Dir          string // default "sluice-data/journal" beside the config
	BytesMax     int64  // `bytes_max`, 16 GiB
	SegmentBytes int64  // `segment_bytes`, 64 MiB
	DiskReserve  int64  // `disk_reserve`, 1 GiB
	BacklogMax   int64  // `backlog_max`, 0: half of BytesMax not pinned by others
	RetainTime   time.Duration
	RetainBytes  int64
}

// Idempotency is the config of remembered keys (I4).
type Idempotency struct {
	Window   time.Duration // 24h
	BytesMax int64         // 4 GiB
}

// Schema is a checked config with ids.
type Schema struct {
	File        string
	Listen      Listen
	Journal     Journal
	Idempotency Idempotency
	Limits      Limits
	Stores      map[string]*Store
	Clients     map[string]*Client
	Tables      map[string]*Table

	groups []*Group // by GroupID; nil where there is none
}

// Table finds a table by name; nil when there is none. It does not allocate.
func (s *Schema) Table(name []byte) *Table { return s.Tables[string(name)] }

// Group finds a group by id, also a dropped one that the catalog still knows;
// nil when there is none.
func (s *Schema) Group(id sluice.GroupID) *Group {
	if int(id) < len(s.groups) {
		return s.groups[id]
	}
	return nil
}

// Groups lists every group that the catalog knows, by id.
func (s *Schema) Groups() []*Group {
	var out []*Group
	for _, g := range s.groups {
		if g != nil {
			out = append(out, g)
		}
	}
	return out
}

// Column finds a column that is not an event's, and its group. It does not allocate.
func (t *Table) Column(name []byte) (*Group, *Column) {
	c := t.columns[string(name)]
	if c == nil {
		return nil, nil
	}
	return c.group, c
}

// Group finds a group by name; nil when there is none.
func (t *Table) Group(name []byte) *Group { return t.groups[string(name)] }

// Column finds a column of the group by name. It does not allocate.
func (g *Group) Column(name []byte) *Column { return g.byName[string(name)] }

// ByID finds a column, also a dropped one; nil when there is none.
func (g *Group) ByID(id sluice.ColumnID) *Column {
	if int(id) < len(g.byID) {
		return g.byID[id]
	}
	return nil
}

// Live is the columns that doors know.
func (g *Group) Live() []*Column {
	n := len(g.Columns)
	for n > 0 && g.Columns[n-1].Dropped {
		n--
	}
	return g.Columns[:n]
}

// link fills the lookups of a table from its groups and columns.
func (t *Table) link() {
	t.columns = map[string]*Column{}
	t.groups = map[string]*Group{}
	for _, g := range t.Groups {
		g.link(t)
		t.groups[g.Name] = g
		for _, c := range g.Live() {
			if !g.Events {
				t.columns[c.Name] = c
			}
		}
	}
}

func (g *Group) link(t *Table) {
	g.Table = t
	g.byName = map[string]*Column{}
	g.byID = nil
	for i, c := range g.Columns {
		c.group, c.Index = g, i
		for len(g.byID) <= int(c.ID) {
			g.byID = append(g.byID, nil)
		}
		g.byID[c.ID] = c
		if !c.Dropped {
			g.byName[c.Name] = c
		}
	}
}

// CanReject tells whether the database may refuse a change to this group: own
// tables cannot refuse what the door let in (S10).
func (g *Group) CanReject() bool { return g.Existing != nil }

// FullName is "table" or "table.group".
func (g *Group) FullName() string {
	if g.Name == "" {
		return g.Table.Name
	}
	return g.Table.Name + "." + g.Name
}
