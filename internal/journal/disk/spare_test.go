package disk

import (
	"bytes"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/vfs"
)

// meddling runs a function between the steps that make a spare a segment.
type meddling struct {
	vfs.FS
	between func()
}

func (m *meddling) Rename(from, to string) error {
	if m.between != nil && strings.HasPrefix(filepath.Base(from), "spare") {
		m.between()
	}
	return m.FS.Rename(from, to)
}

// A spare that Append has taken still lies under the spare's name until it is
// renamed. Prepare must not make the next one there: it would empty the segment
// and write zeros over its commits.
func TestJ1_PrepareLeavesASpareThatIsTakenAlone(t *testing.T) {
	fsys := &meddling{FS: vfs.OS{}}
	opts := Options{Dir: t.TempDir(), FS: fsys, SegmentBytes: testSegmentBytes, RecentBytesMax: 1}
	j := mustOpen(t, opts)
	fsys.between = func() { must(t, j.Prepare()) }
	var bodies [][]byte
	made := journaltest.NewBodies()
	for n := range 40 {
		must(t, j.Prepare())
		body := made.Next(testSegmentBytes/5, likes)
		if _, err := j.Append(body); err != nil {
			t.Fatalf("append %d: %v", n+1, err)
		}
		bodies = append(bodies, body)
	}
	must(t, j.Close())
	j = mustOpen(t, opts)
	for n, want := range bodies {
		if c, err := j.Read(uint64(n + 1)); err != nil || !bytes.Equal(c.Body, want) {
			t.Fatalf("commit %d: %v", n+1, err)
		}
	}
}

// The same with the two at once, as they run.
func TestJ1_AppendAndPrepareAtOnce(t *testing.T) {
	opts := Options{Dir: t.TempDir(), FS: vfs.OS{}, SegmentBytes: testSegmentBytes, RecentBytesMax: 1}
	j := mustOpen(t, opts)
	stop := make(chan struct{})
	var preparing sync.WaitGroup
	preparing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := j.Prepare(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var bodies [][]byte
	made := journaltest.NewBodies()
	for n := range 200 {
		body := made.Next(testSegmentBytes/3, likes)
		bodies = append(bodies, body)
		if _, err := j.Append(body); err != nil {
			t.Fatalf("append %d: %v", n+1, err)
		}
	}
	close(stop)
	preparing.Wait()
	must(t, j.Close())
	j = mustOpen(t, opts)
	for n, want := range bodies {
		if c, err := j.Read(uint64(n + 1)); err != nil || !bytes.Equal(c.Body, want) {
			t.Fatalf("commit %d: %v", n+1, err)
		}
	}
}
