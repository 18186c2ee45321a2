package measure

import (
	"math/bits"
	"time"
)

// Latencies counts durations in buckets that are 1/64 of their value wide, so a
// percentile is exact to 1.6 %, whatever the number of samples. The zero value
// is ready; it is not for concurrent use: each caller has one, and they merge.
type Latencies struct {
	counts [48 * 64]uint32
	n      uint64
}

// Add counts one duration.
func (l *Latencies) Add(d time.Duration) {
	l.counts[min(bucketOf(uint64(max(d, 0))), len(l.counts)-1)]++
	l.n++
}

func bucketOf(v uint64) int {
	if v < 64 {
		return int(v)
	}
	e := bits.Len64(v) - 7
	return e<<6 + int(v>>e)
}

// valueOf is the upper end of a bucket.
func valueOf(bucket int) time.Duration {
	if bucket < 128 {
		return time.Duration(bucket)
	}
	e := bucket>>6 - 1
	return time.Duration((uint64(bucket&63|64)+1)<<e - 1)
}

// Merge adds all that o has counted.
func (l *Latencies) Merge(o *Latencies) {
	for i, c := range o.counts {
		l.counts[i] += c
	}
	l.n += o.n
}

// At gives a percentile, q in 0 to 1.
func (l *Latencies) At(q float64) time.Duration {
	left := uint64(q * float64(l.n))
	for i, c := range l.counts {
		if uint64(c) > left {
			return valueOf(i)
		}
		left -= uint64(c)
	}
	return 0
}

// Millis is At in milliseconds.
func (l *Latencies) Millis(q float64) float64 { return float64(l.At(q)) / 1e6 }
