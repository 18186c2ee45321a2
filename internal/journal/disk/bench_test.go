package disk

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

// BenchmarkAppend compares a commit with a bare append and fdatasync of the
// same bytes, in turn, in one run: the machine's mood is the same for both. The
// group commits are those of 8 to 1,024 writers of 128 bytes.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"1KiB", 1 << 10}, {"8KiB", 8 << 10}, {"64KiB", 64 << 10}, {"128KiB", 128 << 10}} {
		b.Run(c.name, func(b *testing.B) { benchAppend(b, c.size) })
	}
}

func benchAppend(b *testing.B, size int) {
	dir := b.TempDir()
	j, err := Open(Options{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	bare, err := vfs.OS{}.Create(filepath.Join(dir, "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer bare.Close()
	bodies := journaltest.NewBodies()
	streams := make([]journal.Stream, 64)
	for i := range streams {
		streams[i] = journal.Stream{Group: 1, Partition: uint8(i * 4)}
	}
	body := bodies.Next(size, streams...)
	prepared := make(chan error)
	stop := make(chan bool)
	go prepareLoop(j, stop, prepared)
	var ours, theirs []time.Duration
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		began := time.Now()
		if _, err := j.Append(body); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(began))
		b.StopTimer()
		began = time.Now()
		if _, err := bare.WriteAt(body, int64(i)*int64(len(body))); err != nil {
			b.Fatal(err)
		}
		if err := bare.Sync(); err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, time.Since(began))
		b.StartTimer()
	}
	b.StopTimer()
	close(stop)
	if err := <-prepared; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(total(theirs))/float64(total(ours)), "bare/ours")
	b.ReportMetric(float64(p99(ours).Microseconds()), "p99-µs")
	b.ReportMetric(float64(p99(theirs).Microseconds()), "bare-p99-µs")
}

// prepareLoop is what the node runs beside the journal.
func prepareLoop(j *Journal, stop chan bool, done chan error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			done <- nil
			return
		case <-tick.C:
			if err := j.Prepare(); err != nil {
				done <- err
				return
			}
			if segs := j.Segments(); len(segs) > 4 {
				if err := j.Remove(segs[0].First); err != nil {
					done <- err
					return
				}
			}
		}
	}
}

func total(d []time.Duration) (sum time.Duration) {
	for _, x := range d {
		sum += x
	}
	return sum
}

func p99(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)*99/100]
}

// BenchmarkOpen measures a start over a GiB of backlog with indexes, and over
// one newest segment that has to be read.
func BenchmarkOpen(b *testing.B) {
	opts := Options{Dir: filepath.Join(b.TempDir(), "journal")}
	j, err := Open(opts)
	if err != nil {
		b.Fatal(err)
	}
	body := journaltest.NewBodies().Next(60<<10, journal.Stream{Group: 1, Partition: 3})
	for j.Usage().Bytes < 1<<30 {
		if _, err := j.Append(body); err != nil {
			b.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		j, err := Open(opts)
		if err != nil {
			b.Fatal(err)
		}
		if err := j.Close(); err != nil {
			b.Fatal(err)
		}
	}
	_ = os.RemoveAll(opts.Dir)
}
