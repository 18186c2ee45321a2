package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/internal/console"
)

// report is the outcome of a run.
type report struct {
	Machine measure.Machine `json:"machine"`
	Quick   bool            `json:"quick"`
	Callers int             `json:"callers"`
	Rate    float64         `json:"open_loop_writes_per_second"`
	Seconds float64         `json:"seconds_a_cell"`
	Rows    []Row           `json:"rows"`
	Kills   []Kill          `json:"kills,omitempty"`
	Missing []missing       `json:"left_out,omitempty"`
}

type missing struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// Row is one system in one cell. A value of -1 has no meaning in that system.
type Row struct {
	Workload        string  `json:"workload"`
	About           string  `json:"about"`
	Loop            string  `json:"loop"`
	Name            string  `json:"name"`
	End             string  `json:"end"`
	Durable         string  `json:"acknowledged_means"`
	Differs         string  `json:"differs,omitempty"`
	Writes          uint64  `json:"writes"`
	Late            uint64  `json:"not_sent_in_time,omitempty"`
	PerSecond       float64 `json:"acknowledged_per_second"`
	LandedPerSecond float64 `json:"landed_per_second"` // until the end has all of it
	P50             float64 `json:"p50_ms"`
	P99             float64 `json:"p99_ms"`
	P999            float64 `json:"p999_ms"`
	MemoryMiB       float64 `json:"memory_mib"`
	CPUPerMillion   float64 `json:"cpu_seconds_per_million"`
	RowsPerWrite    float64 `json:"rows_per_write"`
	WALPerWrite     float64 `json:"wal_bytes_per_write"`
	OwnLogPerWrite  float64 `json:"own_log_bytes_per_write"`
	Failed          string  `json:"failed,omitempty"`
}

// Kill is what one system lost.
type Kill struct {
	Name    string `json:"name"`
	Retry   string `json:"retry_known_by,omitempty"`
	Kills   int    `json:"kills"`
	Sent    uint64 `json:"sent"`
	Acked   uint64 `json:"acknowledged"`
	Present uint64 `json:"present"` // of the acknowledged
	Lost    uint64 `json:"lost"`    // of the acknowledged
	Retried uint64 `json:"retried"`
	Doubled uint64 `json:"doubled"`
	Failed  string `json:"failed,omitempty"`
}

func (r *Row) short() string {
	if r.Failed != "" {
		return "FAILED: " + r.Failed
	}
	return fmt.Sprintf("%s/s, p50 %s ms, p99 %s ms", number(r.PerSecond), number(r.P50), number(r.P99))
}

// figure is a column in which rows are compared.
type figure struct {
	name string
	of   func(*Row) float64
	more bool // more is better
}

var figures = []figure{
	{"acks", func(r *Row) float64 { return r.PerSecond }, true},
	{"landed", func(r *Row) float64 { return r.LandedPerSecond }, true},
	{"p50", func(r *Row) float64 { return r.P50 }, false},
	{"p99", func(r *Row) float64 { return r.P99 }, false},
	{"p99.9", func(r *Row) float64 { return r.P999 }, false},
	{"memory", func(r *Row) float64 { return r.MemoryMiB }, false},
	{"CPU", func(r *Row) float64 { return r.CPUPerMillion }, false},
	{"rows", func(r *Row) float64 { return r.RowsPerWrite }, false},
	{"WAL", func(r *Row) float64 { return r.WALPerWrite }, false},
	{"own log", func(r *Row) float64 { return r.OwnLogPerWrite }, false},
}

// margin: closer than this is a draw.
const margin = 1.05

// beats says in which figures a rival is better than Sluice with the same end.
// Redis stands against Sluice with SQLite: both are one machine without a database server.
func (rp *report) beats(r *Row) string {
	end := r.End
	if end == endRedis {
		end = endSQLite
	}
	var wins []string
	for i := range rp.Rows {
		ours := &rp.Rows[i]
		if ours.Workload != r.Workload || ours.Loop != r.Loop || ours.Name != "Sluice > "+end || ours == r || ours.Failed+r.Failed != "" {
			continue
		}
		for _, f := range figures {
			a, b := f.of(r), f.of(ours)
			if a <= 0 || b <= 0 {
				continue
			}
			ratio := b / a
			if f.more {
				ratio = a / b
			}
			if ratio > margin {
				wins = append(wins, fmt.Sprintf("%s %.1fx", f.name, ratio))
			}
		}
	}
	return strings.Join(wins, ", ")
}

// write prints the tables for people.
func (rp *report) write(w io.Writer) error {
	fmt.Fprintf(w, "%s\n", rp.Machine.Text())
	fmt.Fprintf(w, "%d callers, each with one write under way; %.3g s a cell; the open loop sends %s/s and counts from when a write was due\n",
		rp.Callers, rp.Seconds, number(rp.Rate))
	if rp.Quick {
		fmt.Fprintln(w, "A quick run: it shows that everything works, its figures mean little.")
	}
	var last string
	var t *console.Table
	plain := &console.Console{W: w}
	for i := range rp.Rows {
		r := &rp.Rows[i]
		if group := r.Workload + "/" + r.Loop; group != last {
			if err := finish(t, plain); err != nil {
				return err
			}
			last = group
			fmt.Fprintf(w, "\n%s, %s loop: %s\n", r.Workload, r.Loop, r.About)
			t = rowTable()
		}
		if r.Failed != "" {
			t.Row(r.Name, "FAILED", "", "", "", "", "", "", "", "", "", r.Failed)
			continue
		}
		landed := number(r.LandedPerSecond)
		t.Row(r.Name, number(r.PerSecond), landed, r.late(r.P50), r.late(r.P99), r.late(r.P999), number(r.MemoryMiB), number(r.CPUPerMillion),
			number(r.RowsPerWrite), number(r.WALPerWrite), number(r.OwnLogPerWrite), rp.beats(r))
	}
	if err := finish(t, plain); err != nil {
		return err
	}
	if err := rp.writeKills(w, plain); err != nil {
		return err
	}
	for _, m := range rp.Missing {
		fmt.Fprintf(w, "\n%s is left out: %s\n", m.Name, m.Why)
	}
	return rp.writeTerms(w, plain)
}

func rowTable() *console.Table {
	t := &console.Table{Columns: []console.Column{console.Left("ROW")}}
	for _, title := range []string{"ACKED/s", "LANDED/s", "p50 ms", "p99 ms", "p99.9 ms", "MiB", "CPU s/M", "ROWS/WRITE", "WAL B/WRITE", "OWN LOG B/WRITE"} {
		t.Columns = append(t.Columns, console.Right(title))
	}
	t.Columns = append(t.Columns, console.Left("BEATS SLUICE IN"))
	return t
}

func finish(t *console.Table, c *console.Console) error {
	if t == nil {
		return nil
	}
	return t.Write(c)
}

// late marks a latency of a loop that fell behind: the truth is worse.
func (r *Row) late(v float64) string {
	if r.Late > 0 {
		return ">" + number(v)
	}
	return number(v)
}

func (rp *report) writeKills(w io.Writer, c *console.Console) error {
	if len(rp.Kills) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nkill -9 of every process of the row, %d callers that send again what was not answered\n", killCallers)
	t := &console.Table{Columns: []console.Column{console.Left("ROW"), console.Left("A RETRY IS KNOWN BY"), console.Right("KILLS"), console.Right("ACKNOWLEDGED"),
		console.Right("PRESENT"), console.Right("LOST"), console.Right("RETRIED"), console.Right("DOUBLED"), console.Left("")}}
	for _, k := range rp.Kills {
		retry := k.Retry
		if retry == "" {
			retry = "nothing"
		}
		t.Row(k.Name, retry, console.Count(k.Kills), console.Count(k.Acked), console.Count(k.Present), console.Count(k.Lost), console.Count(k.Retried), console.Count(k.Doubled), k.Failed)
	}
	if err := t.Write(c); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "The page cache outlives kill -9, so this does not show what a power cut takes: for that see what an acknowledgement means.")
	return err
}

// writeTerms says what each row stands for.
func (rp *report) writeTerms(w io.Writer, c *console.Console) error {
	fmt.Fprintln(w)
	t := &console.Table{Columns: []console.Column{console.Left("ROW"), console.Left("ENDS UP IN"), console.Left("ACKNOWLEDGED MEANS"), console.Left("DIFFERS IN")}}
	seen := map[string]bool{}
	for i := range rp.Rows {
		if r := &rp.Rows[i]; !seen[r.Name] {
			seen[r.Name] = true
			t.Row(r.Name, r.End, r.Durable, r.Differs)
		}
	}
	if t.Len() == 0 {
		return nil
	}
	if err := t.Write(c); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "LANDED counts until the end has everything. MiB is the peak of all processes of the row, shared pages once. CPU is seconds per million\n"+
		"writes, landing included. WAL is the database's; OWN LOG is the journal, AOF or stream in front of it. A dash: does not apply, or cannot be seen from outside.")
	return err
}

func number(v float64) string {
	switch {
	case v < 0:
		return "-"
	case v < 0.01:
		return fmt.Sprintf("%.4f", v)
	case v < 1:
		return fmt.Sprintf("%.3f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return console.Count(int64(v + 0.5))
}

func (rp *report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(rp)
}
