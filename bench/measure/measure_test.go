package measure

import (
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
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

func TestStart_ReadsTheHello(t *testing.T) {
	var hello struct{ Addr string }
	p, err := Start(exec.Command("sh", "-c", `echo '{"Addr":"here"}'; exec sleep 100000`), &hello)
	if err != nil {
		t.Fatal(err)
	}
	defer KillAll([]*Process{p})
	if hello.Addr != "here" || p.PeakMiB() <= 0 {
		t.Errorf("it says %q and takes %v MiB", hello.Addr, p.PeakMiB())
	}
}

func TestStart_TellsWhatAProgramSaidThatEnded(t *testing.T) {
	var hello struct{ Addr string }
	_, err := Start(exec.Command("sh", "-c", "echo no disk >&2"), &hello)
	if err == nil || !strings.Contains(err.Error(), "start sh") || !strings.Contains(err.Error(), "no disk") {
		t.Errorf("got %v", err)
	}
}

func TestKillAll_ReachesDescendants(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var hello struct{ Addr string }
	cmd := exec.Command("sh", "-c", `sleep 100000 & echo '{}'; wait`)
	cmd.ExtraFiles = []*os.File{out}
	p, err := Start(cmd, &hello)
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	all := []*Process{p}
	if n := len(tree(all)); n != 2 {
		t.Errorf("%d processes, want the shell and its child", n)
	}
	if u := UsageOf(all); u.Memory <= 0 {
		t.Errorf("they take %d bytes", u.Memory)
	}
	KillAll(all)
	// The pipe ends when nobody holds it any more.
	if _, err := io.ReadAll(in); err != nil {
		t.Error(err)
	}
}
