package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/console"
)

const loadHelp = `Loads a file into Sluice, and goes on where it stopped when it is run again.

FILE is NDJSON (one JSON value a line), CSV or TSV (the first line names the
fields), plain or gzip; - is standard input. Without a template each line is a
write as POST /v1/writes takes it. A template is a file with one or more writes
in which a string stands for a field of the record:

  "$name"         the field with the type it has (in CSV: text)
  "$name:int64"   converted; also float64, decimal, bool, text, json,
                  timestamp, date, unix, unix_ms
  "$name?"        left out where the field is missing, null or empty
  "$a.b"          a field inside an object
  "$$name"        the text "$name" itself

What was loaded is kept in FILE.sluice-load.json. When a load was interrupted,
by ctrl-C, a crash or a server that is gone, the same command goes on and counts
nothing twice. Lines are sent in their order; a write that the server refuses
for a while (overload, a full backlog) is sent again later. Lines that cannot be
used go to FILE.sluice-faults.ndjson with their number and the reason.`

const loadExample = `  sluice load writes.ndjson
  sluice load flights.ndjson.gz --template flights.template.json
  sluice load likes.csv --template likes.template.json --faults bad.ndjson
  zcat old/*.gz | sluice load - --template posts.template.json

  # likes.template.json, for a CSV with the fields post and user
  {"table":"posts","key":"$post:int64","add":{"likes":1},"unique":{"likers":"$user"}}`

type loadFlags struct {
	template, format, state, faults string
	restart                         bool
	patience                        time.Duration
}

func (p *program) load() *cobra.Command {
	var f loadFlags
	cmd := &cobra.Command{
		Use: "load FILE|-", Short: "Load NDJSON or CSV; resumes without counting twice", Long: loadHelp, Example: loadExample,
		Args: p.exactly(1, "one file, or - for standard input"),
		RunE: func(cmd *cobra.Command, args []string) error { return p.runLoad(cmd.Context(), args[0], f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.template, "template", "", "file with the writes that each record becomes")
	flags.StringVar(&f.format, "format", "", "ndjson, csv or tsv (default: told by the file's name)")
	flags.StringVar(&f.state, "state", "", "where the load keeps where it stands (default FILE.sluice-load.json)")
	flags.StringVar(&f.faults, "faults", "", "where lines go that cannot be used (default FILE.sluice-faults.ndjson)")
	flags.BoolVar(&f.restart, "restart", false, "forget an earlier load of the file and load all of it")
	flags.DurationVar(&f.patience, "patience", 5*time.Minute, "how long to try while the server takes nothing")
	return cmd
}

func (p *program) runLoad(ctx context.Context, file string, f loadFlags) (err error) {
	in, err := openInput(file, f.format, p.Stdin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	tmpl, hash, err := readTemplate(f.template)
	if err != nil {
		return err
	}
	if in.csv && tmpl == nil {
		return usage("a CSV needs --template FILE, which says what writes a line becomes; see: sluice load --help")
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	st, err := p.loadState(in, f, hash)
	if err != nil {
		return err
	}
	if !st.Done.IsZero() {
		return p.loadedBefore(st)
	}
	l := &loader{in: in, tmpl: tmpl, st: st, patience: f.patience, pause: pause, faults: faultsFile{path: faultsPath(file, f), own: f.faults == ""}, say: p.err}
	if err := l.connect(ctx, p, c); err != nil {
		return err
	}
	began, before := time.Now(), st.Accepted
	if st.Next > 1 || st.Offset > 0 {
		fmt.Fprintf(p.Stderr, "going on after line %s (%s)\n", console.Count(st.Line), st.path)
	}
	err = loadError(l.run(ctx))
	return errors.Join(err, p.printLoaded(l, err, loadSpan{time.Since(began), st.Accepted - before}))
}

func readTemplate(file string) (*template, string, error) {
	if file == "" {
		return nil, "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("read the template: %w", err)
	}
	t, err := parseTemplate(file, text)
	sum := sha256.Sum256(text)
	return t, hex.EncodeToString(sum[:16]), err
}

func faultsPath(file string, f loadFlags) string {
	switch {
	case f.faults != "":
		return f.faults
	case file == "-":
		return "stdin.sluice-faults.ndjson"
	default:
		return file + ".sluice-faults.ndjson"
	}
}

// loadState is the state of an earlier run of the same load, or a new one.
func (p *program) loadState(in *input, f loadFlags, template string) (*loadState, error) {
	st := &loadState{Version: loadStateVersion, Template: template, Next: 1}
	if in.file == nil {
		return st, nil
	}
	var err error
	if st.File, err = in.fingerprint(); err != nil {
		return nil, err
	}
	st.path = in.name + ".sluice-load.json"
	if f.state != "" {
		st.path = f.state
	}
	if f.restart {
		return st, nil
	}
	old, err := readLoadState(st.path)
	if err != nil || old == nil {
		return st, err
	}
	return old, old.fits(st.File, template)
}

func (p *program) loadedBefore(st *loadState) error {
	if p.json {
		return p.printJSON(loadResult{State: "loaded before", Accepted: st.Accepted, Refused: st.Refused, Lines: st.Line})
	}
	p.say("this file was loaded before, at %s: %s accepted, %s refused; --restart loads it again, and counts it again",
		st.Done.Local().Format(time.DateTime), console.Count(st.Accepted), console.Count(st.Refused))
	return nil
}

type loadSpan struct {
	took     time.Duration
	accepted int64
}

// loadResult is what --json prints.
type loadResult struct {
	State    string           `json:"state"` // done, interrupted, loaded before
	Accepted int64            `json:"accepted"`
	Refused  int64            `json:"refused"`
	Reasons  map[string]int64 `json:"reasons,omitempty"` // of what this run refused
	Lines    int64            `json:"lines"`
	Faults   string           `json:"faults,omitempty"`
	Resume   string           `json:"resume,omitempty"`
	Seconds  float64          `json:"seconds"`
}

func (p *program) printLoaded(l *loader, err error, span loadSpan) error {
	r := loadResult{State: "done", Accepted: l.st.Accepted, Refused: l.st.Refused, Reasons: l.reasons, Lines: l.st.Line, Seconds: span.took.Seconds()}
	if l.st.Refused > 0 {
		r.Faults = l.faults.path
	}
	if err != nil {
		r.State, r.Resume = "interrupted", l.st.path
	}
	if p.json {
		if e := p.printJSON(r); e != nil {
			return e
		}
	} else {
		p.printLoadedText(r, span)
	}
	if err == nil && r.Refused > 0 {
		return answer(exitPartly)
	}
	return nil
}

func (p *program) printLoadedText(r loadResult, span loadSpan) {
	var t console.Pairs
	rate := float64(span.accepted) / max(span.took.Seconds(), 1e-9)
	t.Add("accepted", "%s  (%s, %s)", p.out.Bold(console.Plural(r.Accepted, "write", "writes")), console.Span(span.took), console.PerSecond(rate))
	if r.Refused > 0 {
		t.Add("refused", "%s%s, see %s", p.out.Yellow(console.Count(r.Refused)), reasonList(r.Reasons), r.Faults)
	}
	if r.State != "done" {
		t.Add("read", "%s", console.Plural(r.Lines, "line", "lines"))
		if r.Resume != "" {
			t.Add("to go on", "run the same command again; nothing counts twice")
		}
	}
	t.Write(p.out)
}
