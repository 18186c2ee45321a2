// Package observe names every metric and event once, as data, and holds the
// cheap histogram behind them. It never knows Prometheus, slog or where a figure
// is shown: node does. Counters and gauges are atomics in the parts that they
// tell of; node asks each part when somebody scrapes, and hands on Samples.
package observe

import "iter"

// Kind is how a metric behaves.
type Kind string

// The kinds, as Prometheus names them.
const (
	Counter       Kind = "counter"
	Gauge         Kind = "gauge"
	HistogramKind Kind = "histogram"
)

// Metric is one figure, by its labels.
type Metric struct {
	Name   string // with its unit; counters end in _total
	Kind   Kind
	Labels []string
	Help   string // one honest sentence
}

// Sample is one metric at one moment: Value, or Histogram for a histogram.
type Sample struct {
	Metric    *Metric
	Labels    []string // values, in the order of Metric.Labels
	Value     float64
	Histogram *Histogram
}

// Samples is what a walk over all parts gives.
type Samples = iter.Seq[Sample]

// Of makes a Sample of a counter or gauge.
func (m *Metric) Of(value float64, labels ...string) Sample {
	return Sample{Metric: m, Labels: labels, Value: value}
}

// With makes a Sample of a histogram.
func (m *Metric) With(h *Histogram, labels ...string) Sample {
	return Sample{Metric: m, Labels: labels, Histogram: h}
}

var catalogue []*Metric

// Metrics lists every metric, in the order of the docs.
func Metrics() []*Metric { return catalogue }

func define(kind Kind, name, help string, labels ...string) *Metric {
	m := &Metric{Name: name, Kind: kind, Labels: labels, Help: help}
	catalogue = append(catalogue, m)
	return m
}

// Accepting.
var (
	Accepted    = define(Counter, "sluice_writes_accepted_total", "Writes made durable and acknowledged, counted once for each group that they touch.")
	Folded      = define(Counter, "sluice_entries_total", "Entries that the accepted writes became in the journal; accepted divided by this is what folding at the door saves.")
	Duplicates  = define(Counter, "sluice_duplicate_chunks_total", "Chunks recognised as retries and answered with the original's receipt.")
	Refused     = define(Counter, "sluice_writes_refused_total", "Writes not accepted, by the reason that the client was told.", "reason")
	Commits     = define(Counter, "sluice_commits_total", "Group commits written to the journal, one fsync each.")
	CommitBytes = define(Counter, "sluice_commit_bytes_total", "Bytes of commit bodies written to the journal.")
	CommitTime  = define(HistogramKind, "sluice_commit_seconds", "From the first write of a commit until it was durable: what a waiting client feels.")
	AppendTime  = define(HistogramKind, "sluice_append_seconds", "Writing and syncing one commit: what the disk takes of it.")
	CommitSize  = define(HistogramKind, "sluice_commit_writes", "Writes in one commit.")
)

// Hot keys, by group.
var (
	HotKeys  = define(Gauge, "sluice_hot_keys", "Keys that take at least 1 % of the group's writes, or did a moment ago; `sluice hot` lists them.", "table", "group")
	HotShare = define(Gauge, "sluice_hot_key_share", "Part of the group's writes that goes to its hottest key, from 0 to 1; 0 when no key is hot.", "table", "group")
)

// Draining, by the group and the shard it goes to.
var (
	streamLabels = []string{"table", "group", "store", "shard"}

	QueuedWrites = define(Gauge, "sluice_queue_writes", "Writes acknowledged and not yet durably applied.", streamLabels...)
	QueueAge     = define(Gauge, "sluice_queue_age_seconds", "Age of the oldest write that is not yet durably applied; 0 when none waits.", streamLabels...)
	Applied      = define(Counter, "sluice_writes_applied_total", "Writes applied by this process; after a rewind the same write counts again here, never in the database.", streamLabels...)
	Rows         = define(Counter, "sluice_rows_total", "Rows written to the database.", streamLabels...)
	Batches      = define(Counter, "sluice_batches_total", "Transactions that applied a batch.", streamLabels...)
	BatchRows    = define(HistogramKind, "sluice_batch_rows", "Rows of one batch.", streamLabels...)
	ApplyTime    = define(HistogramKind, "sluice_apply_seconds", "One batch, from its first statement until the answer to COMMIT.", streamLabels...)
	FoldRatio    = define(Gauge, "sluice_fold_ratio", "Writes applied for each row written, since this process started.", streamLabels...)
	Rejected     = define(Counter, "sluice_writes_rejected_total", "Writes that the database itself refused; they are kept and can be asked for.", streamLabels...)
	Parked       = define(Gauge, "sluice_parked_entries", "Entries that wait in the shard for a lock or a parent row.", streamLabels...)
	Retries      = define(Counter, "sluice_apply_retries_total", "Steps of the drain that failed and are tried again.", streamLabels...)
	Stopped      = define(Gauge, "sluice_stream_stopped", "1 while the drain waits for somebody to act, else 0.", streamLabels...)
	Confirms     = define(Counter, "sluice_cursor_confirms_total", "Synchronous transactions that made a cursor known to be durable.", streamLabels...)
)

// The journal.
var (
	JournalHead     = define(Gauge, "sluice_journal_head", "Number of the last durable commit.")
	JournalBytes    = define(Gauge, "sluice_journal_bytes", "What the journal's segments occupy on disk.")
	JournalBytesMax = define(Gauge, "sluice_journal_bytes_max", "The limit at which writes are refused.")
	JournalSegments = define(Gauge, "sluice_journal_segments", "Segments of the journal.")
	JournalFree     = define(Gauge, "sluice_journal_disk_free_bytes", "Free space on the journal's disk; below disk_reserve writes are refused.")
)

// Remembered identities.
var (
	IdentityKeys     = define(Gauge, "sluice_identity_keys", "Random idempotency keys remembered.")
	IdentityBytes    = define(Gauge, "sluice_identity_bytes", "What they take, on disk and about to be; at idempotency.bytes_max new keys are refused.")
	IdentityMemory   = define(Gauge, "sluice_identity_memory_bytes", "Memory of all remembered identities, about.")
	IdentityInFlight = define(Gauge, "sluice_identities_in_flight", "Identified chunks whose commit is under way.")
	Producers        = define(Gauge, "sluice_producers", "Producer ids known.")
)

// The doors and the process.
var (
	Connections        = define(Gauge, "sluice_connections", "Open connections.", "door")
	ConnectionsRefused = define(Counter, "sluice_connections_refused_total", "Connections closed at once, since the limit was reached.", "door")
	RequestTime        = define(HistogramKind, "sluice_request_seconds", "One request, from its head until the last byte of its answer was handed to the system; waiting that the client asked for counts too.", "door")
	Ready              = define(Gauge, "sluice_ready", "1 once recovery is done and the doors are open, else 0.")
	Memory             = define(Gauge, "sluice_memory_bytes", "Memory that the process holds from the system.")
	Uptime             = define(Gauge, "sluice_uptime_seconds", "Since this process started.")
)
