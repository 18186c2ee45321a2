package measure

import (
	"math"
	"testing"
	"time"
)

func TestPercentilesAreWithinABucket(t *testing.T) {
	var l Latencies
	for i := 1; i <= 100_000; i++ {
		l.Add(time.Duration(i) * time.Microsecond)
	}
	for _, q := range []float64{0.5, 0.99, 0.999} {
		want := q * 100_000 * float64(time.Microsecond)
		if got := float64(l.At(q)); math.Abs(got-want) > want/50 {
			t.Errorf("percentile %v is %v, want about %v", q, time.Duration(got), time.Duration(want))
		}
	}
}

func TestBucketsRise(t *testing.T) {
	last := -1
	for _, v := range []uint64{0, 1, 63, 64, 65, 127, 128, 129, 130, 1000, 1 << 20, 1<<20 + 1<<14, 1 << 40} {
		at := bucketOf(v)
		if at < last || uint64(valueOf(at)) < v || float64(valueOf(at)) > float64(v)*65/64+1 {
			t.Errorf("%d is in bucket %d, which ends at %d; the last was %d", v, at, valueOf(at), last)
		}
		last = at
	}
}
