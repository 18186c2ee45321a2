// Package flights_test computes the totals of the flights from the raw file,
// with nothing of Sluice, so that what Sluice made of it can be compared. It
// never reads a result of Sluice.
package flights_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"testing"
	"time"

	"sluice.dev/sluice/internal/schema"
)

// flight is one line of the file, as its source has it.
type flight struct {
	Date        string // local time of the origin, 2001/01/01 00:47
	Delay       int64  // minutes; negative: early
	Distance    int64  // miles
	Origin      string
	Destination string
}

// at is what "$date:timestamp" of the template makes of the date: UTC.
func (f *flight) at(t *testing.T) time.Time {
	t.Helper()
	at, err := time.Parse("2006/01/02 15:04", f.Date)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// airport is what there should be of one origin.
type airport struct {
	Flights, DelayTotal, WorstDelay int64
	Destinations                    map[string]bool
	Last                            flight // no origin has two flights in its last minute
}

// readFlights gives every flight, in the order of the file.
func readFlights(t *testing.T) []flight {
	t.Helper()
	file, err := os.Open("flights.ndjson.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []flight
	for lines := bufio.NewScanner(unzipped); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				t.Fatal(err)
			}
			return all
		}
		var f flight
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("line %d: %v", len(all)+1, err)
		}
		all = append(all, f)
	}
}

// expected gives what there should be of every origin after all flights.
func expected(t *testing.T, flights []flight) map[string]*airport {
	t.Helper()
	airports := map[string]*airport{}
	for _, f := range flights {
		a := airports[f.Origin]
		if a == nil {
			a = &airport{WorstDelay: f.Delay, Destinations: map[string]bool{}, Last: f}
			airports[f.Origin] = a
		}
		a.Flights++
		a.DelayTotal += f.Delay
		a.WorstDelay = max(a.WorstDelay, f.Delay)
		a.Destinations[f.Destination] = true
		if f.at(t).After(a.Last.at(t)) {
			a.Last = f
		}
	}
	return airports
}

// The figures here were computed by another program, in another language, from
// the file of the source package.
func TestFileIsTheSource(t *testing.T) {
	flights := readFlights(t)
	airports := expected(t, flights)
	var delays, worst, most int64
	for _, a := range airports {
		delays += a.DelayTotal
		worst = max(worst, a.WorstDelay)
		most = max(most, int64(len(a.Destinations)))
	}
	if len(flights) != 20_000 || len(airports) != 220 || delays != 154_078 || worst != 522 || most != 113 {
		t.Errorf("%d flights from %d airports, delays %d, worst %d, at most %d destinations", len(flights), len(airports), delays, worst, most)
	}
	dfw := airports["DFW"]
	last := flight{Date: "2001/03/31 21:42", Delay: 36, Distance: 1172, Origin: "DFW", Destination: "IAD"}
	if dfw.Flights != 1103 || dfw.DelayTotal != 10_462 || dfw.WorstDelay != 298 || len(dfw.Destinations) != 113 || dfw.Last != last {
		t.Errorf("DFW: %+v", dfw)
	}
}

func TestConfigHasNoFault(t *testing.T) {
	config, faults := schema.Load("sluice.yaml", func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, _, faults := config.Resolve(nil); len(faults) > 0 {
		t.Fatal(faults)
	}
}
