package node

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/pipeline"
)

// metrics serves what the parts count, asked for at each scrape.
func (n *Node) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{n: n, descs: map[*observe.Metric]*prometheus.Desc{}})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// collector hands observe's samples on to Prometheus.
type collector struct {
	n     *Node
	descs map[*observe.Metric]*prometheus.Desc
}

// Describe makes every metric known, also those that have no sample yet.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range observe.Metrics() {
		c.descs[m] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
		out <- c.descs[m]
	}
}

// Collect walks over all parts.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	c.n.samples(func(s observe.Sample) bool {
		desc := c.descs[s.Metric]
		switch s.Metric.Kind {
		case observe.HistogramKind:
			count, sum, buckets := s.Histogram.Snapshot()
			out <- prometheus.MustNewConstHistogram(desc, count, sum, buckets, s.Labels...)
		case observe.Counter:
			out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, s.Value, s.Labels...)
		default:
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, s.Value, s.Labels...)
		}
		return true
	})
}

func (n *Node) samples(yield func(observe.Sample) bool) {
	n.acceptSamples(yield)
	n.hotSamples(yield)
	for _, d := range n.drains.All() {
		n.drainSamples(d, yield)
	}
	if n.doors.http != nil {
		n.doors.http.Samples()(yield)
	}
	if n.doors.resp != nil {
		n.doors.resp.Samples()(yield)
	}
	usage, head := n.journal.Usage(), n.journal.Head().Number
	yield(observe.JournalHead.Of(float64(head)))
	yield(observe.JournalBytes.Of(float64(usage.Bytes)))
	yield(observe.JournalBytesMax.Of(float64(n.acceptor.Schema().Journal.BytesMax)))
	yield(observe.JournalSegments.Of(float64(len(n.journal.Segments()))))
	yield(observe.JournalFree.Of(float64(usage.FreeDisk)))
	ids := n.dedup.Stats()
	yield(observe.IdentityKeys.Of(float64(ids.Keys)))
	yield(observe.IdentityBytes.Of(float64(ids.Bytes)))
	yield(observe.IdentityMemory.Of(float64(ids.MemoryBytes)))
	yield(observe.IdentityInFlight.Of(float64(ids.InFlight)))
	yield(observe.Producers.Of(float64(ids.Producers)))
	yield(observe.Ready.Of(oneIf(n.ready.Load())))
	yield(observe.Memory.Of(float64(memory())))
	yield(observe.Uptime.Of(time.Since(n.started).Seconds()))
}

func (n *Node) acceptSamples(yield func(observe.Sample) bool) {
	c := n.acceptor.Counts()
	yield(observe.Accepted.Of(float64(c.Writes.Load())))
	yield(observe.Folded.Of(float64(c.Entries.Load())))
	yield(observe.Duplicates.Of(float64(c.Duplicates.Load())))
	for reason := range c.Refused {
		if count := c.Refused[reason].Load(); count > 0 {
			yield(observe.Refused.Of(float64(count), sluice.Reason(reason).String()))
		}
	}
	yield(observe.Commits.Of(float64(c.Commits.Load())))
	yield(observe.CommitBytes.Of(float64(c.Bytes.Load())))
	yield(observe.CommitTime.With(c.CommitTime))
	yield(observe.AppendTime.With(c.AppendTime))
	yield(observe.CommitSize.With(c.CommitWrites))
}

func (n *Node) drainSamples(d *pipeline.Drainer, yield func(observe.Sample) bool) {
	g, pos, streams := d.Group(), d.Position(), n.journal.Streams()
	labels := []string{g.Table.Name, g.Name, d.StoreName(), d.ShardName()}
	one := func(m *observe.Metric, v float64) { yield(m.Of(v, labels...)) }
	c := &pos.Counts
	one(observe.QueuedWrites, float64(d.Queued(streams)))
	one(observe.QueueAge, n.age(d, &pos, streams))
	one(observe.Applied, float64(c.Writes))
	one(observe.Rows, float64(c.Rows))
	one(observe.Batches, float64(c.Batches))
	if c.Rows > 0 {
		one(observe.FoldRatio, float64(c.Writes)/float64(c.Rows))
	}
	one(observe.Rejected, float64(c.Rejected))
	one(observe.Parked, float64(len(pos.Parked)))
	one(observe.Retries, float64(c.Retries))
	one(observe.Stopped, oneIf(pos.State == pipeline.StateStopped))
	one(observe.Confirms, float64(c.Confirms))
	yield(observe.BatchRows.With(c.BatchRows, labels...))
	yield(observe.ApplyTime.With(c.ApplyTime, labels...))
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
