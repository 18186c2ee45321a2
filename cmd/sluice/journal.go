package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/disk"
)

func (p *program) journal() *cobra.Command {
	cmd := p.group("journal", "Look into the journal, and go on after a loss",
		"  sluice journal verify\n  sluice journal dump --from 1000 --max 20\n  sluice journal adopt",
		p.journalDump(), p.journalVerify(), p.journalAdopt())
	cmd.Long = `Looks into the journal, and goes on after a loss.

These commands read the journal's folder itself: --dir, else the config's
journal.dir. dump and verify may run beside a server, adopt may not.`
	cmd.PersistentFlags().StringVar(&p.journalDir, "dir", "", "folder of the journal (default: the config's journal.dir)")
	return cmd
}

// journalOptions finds the journal's folder.
func (p *program) journalOptions() (disk.Options, error) {
	if p.journalDir != "" {
		return disk.Options{Dir: p.journalDir}, nil
	}
	config, err := p.readConfig()
	if err != nil {
		return disk.Options{}, fmt.Errorf("where is the journal? --dir says it without the config, which has faults:\n%w", err)
	}
	return disk.Options{Dir: config.Journal.Dir}, nil
}

type dumpFlags struct {
	from, to uint64
	max      int
	entries  bool
}

func (p *program) journalDump() *cobra.Command {
	var f dumpFlags
	cmd := &cobra.Command{Use: "dump", Short: "List commits, and what is in them", Args: p.noArgs(),
		Long: "Lists the commits in the order of the files. --entries shows the entries too, with\nthe ids of groups and columns that catalog.json beside the segments gives.",
		Example: `  sluice journal dump
  sluice journal dump --from 1000 --to 1010 --entries
  sluice journal dump --json | jq 'select(.fault)'`,
		RunE: func(*cobra.Command, []string) error { return p.runDump(f) }}
	flags := cmd.Flags()
	flags.Uint64Var(&f.from, "from", 0, "first commit")
	flags.Uint64Var(&f.to, "to", 0, "last commit (default: all)")
	flags.IntVar(&f.max, "max", 0, "at most so many commits (default: all)")
	flags.BoolVar(&f.entries, "entries", false, "show the entries")
	return cmd
}

func (p *program) runDump(f dumpFlags) error {
	o, err := p.journalOptions()
	if err != nil {
		return err
	}
	shown := 0
	var damage []error
	for r, err := range disk.Inspect(o) {
		switch {
		case err != nil:
			damage = append(damage, err)
			continue
		case r.Number < f.from || f.to > 0 && r.Number > f.to || f.max > 0 && shown == f.max:
			continue
		}
		shown++
		if err := p.printRecord(&r, f.entries); err != nil {
			return err
		}
	}
	return errors.Join(damage...)
}

func (p *program) printRecord(r *disk.Record, entries bool) error {
	if p.json {
		type full struct {
			*disk.Record
			Chain   string       `json:"chain"`
			Entries []dumpedJSON `json:"entry_list,omitempty"`
		}
		out := full{Record: r, Chain: fmt.Sprintf("%016x", r.Chain)}
		if entries {
			out.Entries = dumpEntries(r)
		}
		return p.printJSON(out)
	}
	text := fmt.Sprintf("commit %-8d  %s  %s  %s, %s, %s  %s+%d  chain %016x", r.Number, r.Time.Format("2006-01-02T15:04:05.000Z"),
		console.Plural(r.Writes, "write", "writes"), console.Plural(r.Entries, "entry", "entries"), console.Plural(r.Streams, "stream", "streams"),
		console.Bytes(int64(r.Bytes)), filepath.Base(r.Segment), r.Offset, r.Chain)
	if r.Fault != "" {
		text += "  " + p.out.Red(r.Fault)
	}
	p.say("%s", text)
	if entries {
		for _, e := range dumpEntries(r) {
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			p.say("  %s", line)
		}
	}
	return nil
}

// dumpedJSON is an entry as dump shows it: with ids and bytes as they are, since
// the names of a catalog may be newer than the commit.
type dumpedJSON struct {
	Ordinal uint32            `json:"ordinal"`
	Group   sluice.GroupID    `json:"group"`
	Slot    uint16            `json:"slot"`
	Key     string            `json:"key_hex"`
	Reset   bool              `json:"reset,omitempty"`
	Replay  uint64            `json:"replay,omitempty"`
	Writes  uint32            `json:"writes"`
	Cells   map[string]string `json:"cells,omitempty"`
}

func dumpEntries(r *disk.Record) []dumpedJSON {
	body, err := journal.DecodeBody(r.Body)
	if err != nil {
		return nil // Record.Fault says it
	}
	var out []dumpedJSON
	_ = body.Each(func(e *sluice.Entry) error {
		d := dumpedJSON{Ordinal: e.Ordinal, Group: e.Group, Slot: e.Slot, Key: hex.EncodeToString(e.Key), Reset: e.Reset, Replay: e.Replay, Writes: e.Writes, Cells: map[string]string{}}
		for _, c := range e.Cells {
			d.Cells[fmt.Sprint(c.Column)] = valueText(c.Value)
		}
		out = append(out, d)
		return nil
	})
	return out
}

// valueText writes a value of the journal for people.
func valueText(v sluice.Value) string {
	switch v.Kind {
	case sluice.Null:
		return "null"
	case sluice.Timestamp:
		return time.UnixMicro(v.Num).UTC().Format(time.RFC3339Nano)
	case sluice.Int64, sluice.Bool:
		return strconv.FormatInt(v.Num, 10)
	case sluice.Float64:
		return strconv.FormatFloat(math.Float64frombits(uint64(v.Num)), 'g', -1, 64)
	case sluice.Date:
		return time.Unix(v.Num*24*60*60, 0).UTC().Format(time.DateOnly)
	case sluice.Hashes:
		return console.Plural(len(v.Bytes)/8, "hash", "hashes")
	case sluice.Sketch:
		return "sketch of " + console.Bytes(int64(len(v.Bytes)))
	case sluice.UUID, sluice.Bytes:
		return hex.EncodeToString(v.Bytes)
	default:
		return string(v.Bytes)
	}
}

func (p *program) journalVerify() *cobra.Command {
	return &cobra.Command{Use: "verify", Short: "Read the whole journal and check every commit", Args: p.noArgs(),
		Long: `Reads the whole journal and checks every commit, the chain of checksums, the
holes and the mark. Exit code 1 when something is damaged. What a crash left
behind the last commit is no damage: nobody was told of it.`,
		Example: "  sluice journal verify\n  sluice journal verify --dir /backup/journal --json",
		RunE:    func(*cobra.Command, []string) error { return p.runVerify() }}
}

func (p *program) runVerify() error {
	o, err := p.journalOptions()
	if err != nil {
		return err
	}
	bar := p.err.Progress(console.ProgressOptions{Title: "verifying", Unit: console.Bytes})
	report, err := disk.Verify(o, func(done, total int64) { bar.Set(done, total, "") })
	bar.Stop()
	if err != nil {
		return err
	}
	if p.json {
		err = p.printJSON(verifyJSON(&report))
	} else {
		err = p.printReport(o.Dir, &report)
	}
	if err == nil && len(report.Damage) > 0 {
		return answer(exitFailed)
	}
	return err
}

func verifyJSON(r *disk.Report) map[string]any {
	out := map[string]any{"journal": hex.EncodeToString(r.ID[:]), "segments": r.Segments, "commits": r.Commits, "first": r.First, "last": r.Last,
		"bytes": r.Bytes, "mark": r.Mark, "epoch_max": r.EpochMax, "whole": len(r.Damage) == 0}
	if len(r.Holes) > 0 {
		out["holes"] = r.Holes
	}
	if r.Torn != nil {
		out["torn"] = r.Torn
	}
	if len(r.Damage) > 0 {
		out["damage"] = r.Damage
	}
	return out
}

func (p *program) printReport(dir string, r *disk.Report) error {
	state := p.out.Green("whole")
	if n := len(r.Damage); n > 0 {
		state = p.out.Red(console.Plural(n, "damaged place", "damaged places"))
	}
	p.say("journal %s: %s", absolute(dir), state)
	var t console.Pairs
	t.Add("id", "%x", r.ID)
	t.Add("commits", "%s, %s to %s", console.Count(r.Commits), console.Count(r.First), console.Count(r.Last))
	t.Add("segments", "%s, %s", console.Count(r.Segments), console.Bytes(r.Bytes))
	t.Add("mark", "%s", console.Count(r.Mark))
	for _, h := range r.Holes {
		t.Add("hole", "commits %s to %s %s", console.Count(h.First), console.Count(h.Last), h.Note)
	}
	if r.Torn != nil {
		t.Add("unfinished", "%s at offset %d: left by a crash, nobody was told of it, the next start cuts it", r.Torn.File, r.Torn.Offset)
	}
	for i := range r.Damage {
		d := &r.Damage[i]
		lost := ""
		if d.Last >= d.First {
			lost = fmt.Sprintf("; commits %s to %s are lost", console.Count(d.First), console.Count(d.Last))
		}
		t.Add("damage", "%s", p.out.Red(fmt.Sprintf("%s at offset %d: got %s, want %s%s", d.File, d.Offset, d.Got, d.Want, lost)))
	}
	if err := t.Write(p.out); err != nil {
		return err
	}
	if len(r.Damage) > 0 {
		p.say("Bring the folder back from a copy if there is one. `sluice journal adopt` goes on\nwithout what is lost, and receipts of it say so.")
	}
	return nil
}
