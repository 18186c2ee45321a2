package flights_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// binary is built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-flights-")
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "sluice")
	if text, err := exec.Command("go", "build", "-o", out, "sluice.dev/sluice/cmd/sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, text)
	}
	return out, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// example is the example in a folder of its own, with the server running on a
// free port.
type example struct {
	t      *testing.T
	dir    string
	url    string
	server *exec.Cmd
}

func newExample(t *testing.T) *example {
	t.Helper()
	e := &example{t: t, dir: t.TempDir()}
	config, err := os.ReadFile("sluice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config = append([]byte("listen: {http: \"127.0.0.1:0\", resp: \"off\"}\n"), config...)
	if err := os.WriteFile(filepath.Join(e.dir, "sluice.yaml"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flights.ndjson.gz", "flights.template.ndjson"} {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(e.dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e.server = e.command("serve", "--config", filepath.Join(e.dir, "sluice.yaml"), "--json")
	out, err := e.server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.server.Process.Kill(); _ = e.server.Wait() })
	var doors struct{ HTTP string }
	if err := json.NewDecoder(out).Decode(&doors); err != nil || doors.HTTP == "" {
		t.Fatalf("where the server listens: %v", err)
	}
	e.url = doors.HTTP
	return e
}

func (e *example) command(args ...string) *exec.Cmd {
	e.t.Helper()
	bin, err := binary()
	if err != nil {
		e.t.Fatal(err)
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = e.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// loaded is what `sluice load --json` says.
type loaded struct {
	State    string
	Accepted int64
	Refused  int64
}

// load runs the command of the README; interrupt is called while it runs.
func (e *example) load(interrupt func(*os.Process)) loaded {
	e.t.Helper()
	cmd := e.command("load", "flights.ndjson.gz", "--template", "flights.template.ndjson", "--json", "--url", e.url)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	interrupt(cmd.Process)
	_ = cmd.Wait() // what it printed says how it ended
	var l loaded
	if err := json.Unmarshal(out.Bytes(), &l); err != nil {
		e.t.Fatalf("%v: %s%s", err, &out, &errs)
	}
	return l
}

// accepted is what the server counts.
func (e *example) accepted() uint64 {
	e.t.Helper()
	out, err := e.command("status", "--json", "--url", e.url).Output()
	if err != nil {
		e.t.Fatal(err)
	}
	var st struct {
		Journal struct {
			Accepted uint64 `json:"accepted_writes"`
		}
	}
	if err := json.Unmarshal(out, &st); err != nil {
		e.t.Fatalf("%v: %s", err, out)
	}
	return st.Journal.Accepted
}

// The load is interrupted once while a request is under way, and goes on. Then
// every total is that of an independent computation.
func TestLoadMakesEveryTotal(t *testing.T) {
	flights := readFlights(t)
	e := newExample(t)
	first := e.load(func(p *os.Process) {
		for e.accepted() == 0 {
			time.Sleep(time.Millisecond)
		}
		// A server that stands still answers nothing, so nobody knows of the
		// request under way what became of it.
		for _, step := range []struct {
			who *os.Process
			sig os.Signal
		}{{e.server.Process, syscall.SIGSTOP}, {p, os.Interrupt}} {
			if err := step.who.Signal(step.sig); err != nil {
				t.Fatal(err)
			}
		}
		time.AfterFunc(200*time.Millisecond, func() { _ = e.server.Process.Signal(syscall.SIGCONT) })
	})
	if first.State != "interrupted" {
		t.Errorf("the first load was not interrupted: %+v", first)
	}
	if l := e.load(func(*os.Process) {}); l.State != "done" || l.Accepted != int64(2*len(flights)) || l.Refused != 0 {
		t.Errorf("loaded %+v", l)
	}
	if l := e.load(func(*os.Process) {}); l.State != "loaded before" {
		t.Errorf("once more: %+v", l)
	}
	if text, err := e.command("drain", "--url", e.url).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(e.dir, "flights.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	airports := expected(t, flights)
	compareTotals(t, db, airports)
	compareLast(t, db, airports)
	compareEvents(t, db, flights)
}

func compareTotals(t *testing.T, db *sql.DB, airports map[string]*airport) {
	t.Helper()
	rows, err := db.Query("SELECT origin, flights, delay_total, worst_delay, destinations FROM airports_totals")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var origin string
		var n, delay, worst, destinations int64
		if err := rows.Scan(&origin, &n, &delay, &worst, &destinations); err != nil {
			t.Fatal(err)
		}
		found++
		want := airports[origin]
		if want == nil {
			t.Errorf("nobody left from %s", origin)
			continue
		}
		if n != want.Flights || delay != want.DelayTotal || worst != want.WorstDelay {
			t.Errorf("%s: %d flights, delays %d, worst %d; want %+v", origin, n, delay, worst, want)
		}
		// The sketch's standard error is 1.6 %; what is off by more than four of
		// them and by more than one is wrong.
		exact := float64(len(want.Destinations))
		if off := math.Abs(float64(destinations) - exact); off > max(1, exact*0.065) {
			t.Errorf("%s: %d destinations, exact are %v", origin, destinations, exact)
		}
	}
	if err := rows.Err(); err != nil || found != len(airports) {
		t.Errorf("%d airports, want %d, %v", found, len(airports), err)
	}
}

func compareLast(t *testing.T, db *sql.DB, airports map[string]*airport) {
	t.Helper()
	for origin, want := range airports {
		var at, destination string
		var delay, distance int64
		if err := db.QueryRow("SELECT at, destination, delay, distance FROM airports_last WHERE origin = ?", origin).Scan(&at, &destination, &delay, &distance); err != nil {
			t.Errorf("the last flight from %s: %v", origin, err)
			continue
		}
		when, err := time.Parse(time.RFC3339Nano, at)
		if err != nil {
			t.Errorf("%s: %v", origin, err)
		}
		if !when.Equal(want.Last.at(t)) {
			t.Errorf("%s: the last flight left at %s, want %s", origin, at, want.Last.Date)
		}
		got := flight{Date: want.Last.Date, Delay: delay, Distance: distance, Origin: origin, Destination: destination}
		if got != want.Last {
			t.Errorf("the last flight from %s is %+v, want %+v", origin, got, want.Last)
		}
	}
}

// compareEvents: each flight is there, as often as in the file.
func compareEvents(t *testing.T, db *sql.DB, flights []flight) {
	t.Helper()
	left := map[flight]int{}
	for _, f := range flights {
		f.Date = f.at(t).Format("2006/01/02 15:04")
		left[f]++
	}
	rows, err := db.Query("SELECT at, delay, distance, origin, destination FROM airports_flights")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var f flight
		if err := rows.Scan(&f.Date, &f.Delay, &f.Distance, &f.Origin, &f.Destination); err != nil {
			t.Fatal(err)
		}
		when, err := time.Parse(time.RFC3339Nano, f.Date)
		if err != nil {
			t.Fatal(err)
		}
		f.Date = when.UTC().Format("2006/01/02 15:04")
		if left[f]--; left[f] == 0 {
			delete(left, f)
		} else if left[f] < 0 {
			t.Errorf("more often than in the file: %+v", f)
		}
	}
	if err := rows.Err(); err != nil || len(left) > 0 {
		t.Errorf("%d flights are missing, %v", len(left), err)
	}
}
