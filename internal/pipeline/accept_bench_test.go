package pipeline_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/admit"
	"sluice.dev/sluice/internal/dedup"
	"sluice.dev/sluice/internal/journal/disk"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/vfs"
)

// BenchmarkAccept is the way from Submit to the receipt on a real disk: writers
// that each wait for their own write, as clients without pipelining do.
func BenchmarkAccept(b *testing.B) {
	for _, writers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) { benchAccept(b, writers) })
	}
}

func benchAccept(b *testing.B, writers int) {
	c, _ := schema.Parse("sluice.yaml", []byte(rigConfig), func(string) (string, bool) { return "", false })
	s, _, faults := c.Resolve(nil)
	if len(faults) > 0 {
		b.Fatal(faults)
	}
	j, err := disk.Open(disk.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	d, err := dedup.Open(dedup.Options{Dir: b.TempDir(), FS: vfs.OS{}})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	a := pipeline.NewAcceptor(s, pipeline.AcceptorOptions{Journal: j, Dedup: d, Gate: &admit.Gate{}, Ledger: &pipeline.Ledger{},
		Clock: func() int64 { return 0 }, Wall: time.Now, Committed: func(uint64, []sluice.GroupID) {}})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var loop sync.WaitGroup
	loop.Go(func() {
		for a.Step(ctx) == nil {
		}
	})
	g := s.Tables["posts"].Group([]byte("metrics"))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			e := []sluice.Entry{{Group: g.ID, Key: make([]byte, 8), Writes: 1, Cells: []sluice.Cell{{Column: g.Columns[0].ID, Value: sluice.IntValue(1)}}}}
			for range b.N/writers + 1 {
				binary.BigEndian.PutUint64(e[0].Key, rnd.Uint64N(1e6))
				e[0].Slot = uint16(rnd.IntN(sluice.Slots))
				if _, err := a.Submit(ctx, &sluice.Chunk{Entries: e}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(a.Counts().Writes.Load())/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric(float64(a.Counts().Writes.Load())/float64(a.Counts().Commits.Load()), "writes/commit")
	cancel()
	loop.Wait()
}
