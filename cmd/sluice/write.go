package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/console"
)

const writeHelp = `Writes one change to one key, or what --json-write or standard input says.

The flag is the verb and must agree with the column's merge: --set for set (and
for all columns of a latest_by group), --add for sum, --max, --min, --unique,
and --append group:column=value for a group of events (all --append of one
group are one event). --delete stands alone.

` + valueHelp

const writeExample = `  sluice write posts 42 --add likes=1 --unique viewers=u7
  sluice write posts 42 --set content="hello" --set user_id=7 --wait 5s
  sluice write posts 42 --append analytics:event_type=click --append analytics:user_id=7
  sluice write timeline user_id=7,post_id=42 --set added_at=2026-01-31T12:00:00Z
  sluice write drivers d17 --set lat=52.5 --set lon=13.4 --set at=2026-01-31T12:00:00Z
  sluice write posts 42 --delete
  echo '{"table":"posts","key":42,"add":{"likes":1}}' | sluice write -`

type writeFlags struct {
	set, add, max, min, unique, append []string
	delete                             bool
	raw                                string
	wait                               time.Duration
	key                                string
}

func (p *program) write() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use: "write TABLE KEY | -", Short: "Write one change", Long: writeHelp, Example: writeExample, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return p.runWrite(cmd.Context(), args, f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.set, "set", nil, "column=value: the last one wins")
	flags.StringArrayVar(&f.add, "add", nil, "column=number: added to the sum")
	flags.StringArrayVar(&f.max, "max", nil, "column=value: kept when it is higher")
	flags.StringArrayVar(&f.min, "min", nil, "column=value: kept when it is lower")
	flags.StringArrayVar(&f.unique, "unique", nil, "column=element: counted once; may be repeated")
	flags.StringArrayVar(&f.append, "append", nil, "group:column=value: of one event")
	flags.BoolVar(&f.delete, "delete", false, "delete the row")
	flags.StringVar(&f.raw, "json-write", "", "the whole write as JSON")
	flags.DurationVar(&f.wait, "wait", 0, "wait this long for it to be in the database")
	flags.StringVar(&f.key, "idempotency-key", "", "a retry with the same key and writes counts once")
	return cmd
}

// writes reads what is to be written, from the flags, --json-write or standard input.
func (p *program) writes(args []string, f writeFlags) ([]sluice.Write, error) {
	switch {
	case f.raw != "" && len(args) == 0:
		return readWrites("--json-write", bytes.NewReader([]byte(f.raw)))
	case f.raw != "":
		return nil, usage("--json-write says all of the write; leave out %q", args)
	case len(args) == 1 && args[0] == "-":
		return readWrites("standard input", p.Stdin)
	case len(args) != 2:
		return nil, usage("write takes a table and a key, or - to read JSON from standard input; %d arguments given", len(args))
	}
	w, err := f.write(args[0], args[1])
	return []sluice.Write{w}, err
}

func (f *writeFlags) write(table, key string) (w sluice.Write, err error) {
	w = sluice.Write{Table: table, Key: parseKey(key), Delete: f.delete}
	for _, verb := range []struct {
		flag  string
		texts []string
		into  *map[string]any
	}{{"set", f.set, &w.Set}, {"add", f.add, &w.Add}, {"max", f.max, &w.Max}, {"min", f.min, &w.Min}} {
		if *verb.into, err = assigns(verb.flag, verb.texts); err != nil {
			return w, err
		}
	}
	if w.Unique, err = elements(f.unique); err != nil {
		return w, err
	}
	if w.Append, err = events(f.append); err != nil {
		return w, err
	}
	changes := len(w.Set) + len(w.Add) + len(w.Max) + len(w.Min) + len(w.Unique) + len(w.Append)
	switch {
	case changes == 0 && !w.Delete:
		return w, usage("nothing to write to %s %s; say what with --set, --add, --max, --min, --unique, --append or --delete", table, key)
	case changes > 0 && w.Delete:
		return w, usage("--delete stands alone; write the rest with a second command")
	}
	return w, nil
}

// writesMax bounds what write reads from standard input; load is for more.
const writesMax = sluice.ChunkLinesMax

// readWrites reads one write, several one after the other, or an array.
func readWrites(from string, r io.Reader) ([]sluice.Write, error) {
	dec := json.NewDecoder(bufio.NewReader(r))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	var out []sluice.Write
	for {
		var raw json.RawMessage
		err := dec.Decode(&raw)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: write %d is not JSON: %w", from, len(out)+1, err)
		}
		if out, err = appendWrites(out, raw); err != nil {
			return nil, fmt.Errorf("%s: write %d: %w", from, len(out)+1, err)
		}
		if len(out) > writesMax {
			return nil, fmt.Errorf("%s has more than %d writes; sluice load - takes any number", from, writesMax)
		}
	}
	if len(out) == 0 {
		return nil, usage(`%s is empty; a write is {"table":"posts","key":42,"add":{"likes":1}}`, from)
	}
	return out, nil
}

func appendWrites(out []sluice.Write, raw json.RawMessage) ([]sluice.Write, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // a large int64 must not become a float
	dec.DisallowUnknownFields()
	if raw[0] == '[' {
		var several []sluice.Write
		err := dec.Decode(&several)
		return append(out, several...), err
	}
	var one sluice.Write
	if err := dec.Decode(&one); err != nil {
		return out, err
	}
	return append(out, one), nil
}

// writeBudget is how long write tries: long enough for a server that restarts.
const writeBudget = 5 * time.Second

func (p *program) runWrite(ctx context.Context, args []string, f writeFlags) error {
	writes, err := p.writes(args, f)
	if err != nil {
		return err
	}
	c, err := p.clientTrying(writeBudget)
	if err != nil {
		return err
	}
	a, err := c.WriteMany(ctx, writes, client.WriteOptions{Key: f.key, Wait: f.wait})
	if err != nil && sluice.CodeOf(err) != sluice.Rejected {
		return err
	}
	return p.printAccepted(a, f.wait > 0)
}

// printAccepted says what a write was answered.
func (p *program) printAccepted(a client.Accepted, waited bool) error {
	exit := stateExit(a.State)
	if a.Refused > 0 {
		exit = answer(exitPartly)
	}
	if p.json {
		if err := p.printJSON(a); err != nil {
			return err
		}
		return exit
	}
	var t console.Pairs
	durable := "durable"
	if a.Duplicate {
		durable = "durable before: this was a retry"
	}
	t.Add("accepted", "%s, %s", console.Plural(a.Accepted, "write", "writes"), durable)
	for _, o := range a.Outcomes {
		t.Add(fmt.Sprintf("write %d", o.Line), "%s", p.out.Yellow("not accepted: "+console.Clean(o.Reason+" "+o.Detail)))
	}
	t.Add("receipt", "%s", a.Receipt)
	if waited {
		t.Add("state", "%s", writeState(p.out, a.State))
	}
	if err := t.Write(p.out); err != nil {
		return err
	}
	if a.State != "" && a.State != sluice.StateApplied {
		if err := groupTable(p.out, a.Groups).Write(p.out); err != nil {
			return err
		}
	}
	return exit
}
