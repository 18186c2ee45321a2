package schema

import (
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is a config that was read and found right. It has no ids yet: Resolve
// gives them.
type Config struct {
	File        string
	Listen      Listen
	Journal     Journal
	Idempotency Idempotency
	Limits      Limits
	Stores      map[string]*Store
	Clients     map[string]*Client
	Tables      []*Table // in the order of the file
}

// Defaults are the limits of a config that says nothing about them.
func Defaults() Limits {
	return Limits{
		RequestBytesMax: 8 << 20, LineBytesMax: 1 << 20, KeyBytesMax: keyBytesMax, ValueBytesMax: 1 << 20,
		JSONDepthMax: jsonDepthMax, BatchWritesMax: 1000, ConnsMax: 10_000,
		ReadTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute, WaitMax: time.Minute,
		MemoryMax: 256 << 20, CommitBytesMax: 4 << 20, CommitEntriesMax: 10_000, CommitWritesMax: 1_000_000,
		PipelineMax: 1000, DrainDeadline: 10 * time.Second, SkewMax: time.Minute,
		MultiReadKeysMax: 1000, ReceiptWaitersMax: 10_000,
	}
}

// Load reads and checks a config file. The faults are all there are; the Config
// is nil when there is one.
func Load(file string, env func(string) (string, bool)) (*Config, Faults) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, Faults{{File: file, What: err.Error(), Cure: "name the file with --config, or let `sluice init` write one"}}
	}
	return Parse(file, text, env)
}

// Parse is Load for a text. file names it in faults, and relative paths in it
// are relative to file's folder.
func Parse(file string, text []byte, env func(string) (string, bool)) (*Config, Faults) {
	r := &reader{faults: faults{file: file}, written: map[*yaml.Node]string{}}
	c := &Config{File: file, Limits: Defaults()}
	if doc := r.document(text); doc != nil {
		r.fill(doc, env)
		c.read(r, r.object(doc, ""))
		c.check(r)
	}
	if len(r.faults.list) > 0 {
		r.faults.list.sort()
		return nil, r.faults.list
	}
	return c, nil
}

func (c *Config) read(r *reader, o *object) {
	c.readListen(o.object("listen"))
	c.readJournal(o.object("journal"))
	c.readIdempotency(o.object("idempotency"))
	c.readLimits(o.object("limits"))
	c.readStores(o.object("stores"))
	c.readTables(o.object("tables"))
	c.readClients(o.object("clients"))
	o.done()
	for _, name := range []string{"stores", "tables"} {
		if o.isMapping() && !o.has(name) {
			r.add(position{1, 1}, "add `"+name+":`; `sluice init` writes an example", "the config has no %s", name)
		}
	}
}

// path makes a path relative to the config's folder absolute, as far as the
// config's own is.
func (c *Config) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(filepath.Dir(c.File), p)
}

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
	ms  = int64(time.Millisecond)
	sec = int64(time.Second)
	day = int64(24 * time.Hour)
)

func (c *Config) readJournal(o *object) {
	j := &c.Journal
	*j = Journal{Dir: "sluice-data/journal", BytesMax: 16 * gib, SegmentBytes: 64 * mib, DiskReserve: gib, RetainTime: 10 * time.Minute}
	o.text("dir", &j.Dir)
	o.size("bytes_max", span{mib, 1024 * tib}, &j.BytesMax)
	o.size("segment_bytes", span{64 * kib, gib}, &j.SegmentBytes)
	o.size("disk_reserve", span{0, tib}, &j.DiskReserve)
	o.size("backlog_max", span{mib, 1024 * tib}, &j.BacklogMax)
	j.RetainBytes = min(4*gib, j.BytesMax/4)
	retain := o.object("retain")
	retain.duration("time", span{0, 30 * day}, &j.RetainTime)
	retain.size("bytes", span{0, 1024 * tib}, &j.RetainBytes)
	retain.done()
	o.done()
	j.Dir = c.path(j.Dir)
	if j.Dir == "" {
		o.r.add(o.at("dir"), "name a folder, or remove the line", "journal.dir is empty")
	}
	if j.BytesMax < 4*j.SegmentBytes {
		o.r.add(o.at("bytes_max"), "raise bytes_max, or lower segment_bytes", "journal.bytes_max (%s) holds fewer than 4 segments of %s",
			formatSize(j.BytesMax), formatSize(j.SegmentBytes))
	}
	if j.BacklogMax > j.BytesMax {
		o.r.add(o.at("backlog_max"), "give it at most bytes_max", "journal.backlog_max is above journal.bytes_max")
	}
	if j.RetainBytes > j.BytesMax/2 {
		o.r.add(o.at("retain"), "give it at most half of bytes_max: the rest is for what is not applied yet", "journal.retain.bytes is above half of journal.bytes_max")
	}
}

func (c *Config) readIdempotency(o *object) {
	c.Idempotency = Idempotency{Window: 24 * time.Hour, BytesMax: 4 * gib}
	o.duration("window", span{sec, 366 * day}, &c.Idempotency.Window)
	o.size("bytes_max", span{mib, tib}, &c.Idempotency.BytesMax)
	o.done()
}

func (c *Config) readLimits(o *object) {
	l := &c.Limits
	o.size("request_bytes", span{kib, gib}, &l.RequestBytesMax)
	o.sizeInt("line_bytes", span{kib, 64 * mib}, &l.LineBytesMax)
	o.sizeInt("value_bytes", span{64, 64 * mib}, &l.ValueBytesMax)
	o.count("batch_writes", span{1, 100_000}, &l.BatchWritesMax)
	o.count("connections", span{1, 1_000_000}, &l.ConnsMax)
	o.duration("read_timeout", span{100 * ms, day}, &l.ReadTimeout)
	o.duration("idle_timeout", span{sec, day}, &l.IdleTimeout)
	o.duration("wait_max", span{0, day}, &l.WaitMax)
	o.size("memory", span{16 * mib, tib}, &l.MemoryMax)
	o.sizeInt("commit_bytes", span{64 * kib, 256 * mib}, &l.CommitBytesMax)
	o.count("commit_entries", span{1, 1_000_000}, &l.CommitEntriesMax)
	o.count("commit_writes", span{1, 100_000_000}, &l.CommitWritesMax)
	o.count("pipeline", span{1, 100_000}, &l.PipelineMax)
	o.duration("stop_drain", span{0, day}, &l.DrainDeadline)
	o.duration("skew_max", span{0, day}, &l.SkewMax)
	o.count("read_keys", span{1, 100_000}, &l.MultiReadKeysMax)
	o.count("waiters", span{1, 1_000_000}, &l.ReceiptWaitersMax)
	o.done()
	if int64(l.CommitBytesMax)*4 > l.MemoryMax {
		o.r.add(o.at("memory"), "raise memory, or lower commit_bytes", "limits.memory (%s) holds fewer than 4 commits of %s", formatSize(l.MemoryMax), formatSize(int64(l.CommitBytesMax)))
	}
	if l.ValueBytesMax > l.CommitBytesMax {
		o.r.add(o.at("value_bytes"), "lower value_bytes, or raise commit_bytes", "limits.value_bytes is above limits.commit_bytes: a value would fit no commit")
	}
}
