package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice.dev/sluice/bench/rivals/batch"
)

// stalled is a system that stands still once, for longer than the loop's gaps.
type stalled struct{ first bool }

const stall = 80 * time.Millisecond

func (s *stalled) write(int, op) error {
	if s.first {
		s.first = false
		time.Sleep(stall)
	}
	return nil
}

func (s *stalled) close() {}

// An open loop charges a stall to every write that was due meanwhile; a closed
// loop hides all but one of them.
func TestOpenLoop_CountsFromTheTimeAWriteWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wl := workloads()[0]
		open, err := load(t.Context(), &stalled{first: true}, &wl, 1, newSchedule(200*time.Millisecond, 500))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := open.writes(), uint64(100); got != want {
			t.Errorf("%d writes, want %d", got, want)
		}
		// Of 100 writes, 2 ms apart, 40 were due while it stood still.
		if got := open.At(0.79); got < stall/4 || got > stall {
			t.Errorf("20 of 100 writes waited half the stall or more, yet p79 is %s", got)
		}
	})
}

type broken struct{}

func (broken) write(int, op) error { return errors.New("broken") }
func (broken) close()              {}

func TestLoad_AnErrorEndsTheCellAndIsTold(t *testing.T) {
	wl := workloads()[0]
	if _, err := load(t.Context(), broken{}, &wl, 4, newSchedule(time.Hour, 0)); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
}

func TestWorkloads_MixIsWhatItSays(t *testing.T) {
	var n [128]int
	next := mixed(source(1, 1))
	for range 10_000 {
		n[next().Kind]++
	}
	if l, e := n[batch.Like], n[batch.Event]; l < 8300 || l > 8700 || e < 850 || e > 1150 || n[batch.Place] == 0 {
		t.Errorf("likes %d, events %d, places %d", l, e, n[batch.Place])
	}
}

func TestReport_SaysWhereARivalWins(t *testing.T) {
	rp := &report{Rows: []Row{
		{Workload: "hot", Loop: "closed", Name: "Sluice > SQLite", End: endSQLite, PerSecond: 100, P50: 2, WALPerWrite: -1},
		{Workload: "hot", Loop: "closed", Name: "Redis", End: endRedis, PerSecond: 300, P50: 2.01, WALPerWrite: -1},
	}}
	if got, want := rp.beats(&rp.Rows[1]), "acks 3.0x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := rp.beats(&rp.Rows[0]); got != "" {
		t.Errorf("Sluice beats itself in %q", got)
	}
}

func TestPlot_IsXMLWithABarForEachRow(t *testing.T) {
	rp := &report{Rows: []Row{
		{Workload: "hot", Loop: "closed", Name: "Sluice > SQLite", LandedPerSecond: 1000},
		{Workload: "hot", Loop: "closed", Name: "a <rival>", LandedPerSecond: 10},
	}}
	var b strings.Builder
	p := rp.plots()[0]
	if err := p.write(&b); err != nil {
		t.Fatal(err)
	}
	d, bars := xml.NewDecoder(strings.NewReader(b.String())), 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 3 { // with the background
		t.Errorf("%d rectangles", bars)
	}
}
