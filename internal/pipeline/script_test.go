package pipeline_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
	"sluice.dev/sluice/internal/store"
	"sluice.dev/sluice/internal/store/mem"
)

// TestScripts runs testdata/drain: each file is a story of one rig, with what
// the system said after each step. `go test ./internal/pipeline -rewrite` makes
// the answers anew; the diff is the review.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/drain", func(t *testing.T, path string) {
		s := &script{rig: newRig(t), receipts: map[string]string{}}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	*rig
	receipts map[string]string
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "write":
		return s.write(d)
	case "drain":
		return s.tell(s.drain())
	case "wait":
		dur, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			return err.Error()
		}
		s.now = s.now.Add(dur)
		return s.tell(s.step())
	case "shard":
		return s.shard(d)
	case "restart":
		s.restart()
		return "head " + fmt.Sprint(s.journal.Head().Number)
	case "read":
		return s.read(d)
	case "receipt":
		return s.state(s.receipts[d.CmdArgs[0].Key])
	case "status":
		return s.status()
	case "ledger":
		return s.ledgerText()
	}
	return "unknown command " + d.Cmd
}

func (s *script) write(d *datadriven.TestData) string {
	var id *sluice.Identity
	if d.HasArg("key") {
		var key string
		d.ScanArgs(s.t.(*testing.T), "key", &key)
		id = &sluice.Identity{Key: key, Format: sluice.ChunkFormat}
	}
	ack, err := s.rig.write(id, strings.Split(strings.TrimSpace(d.Input), "\n")...)
	if err != nil {
		return "refused: " + err.Error()
	}
	if d.HasArg("as") {
		var name string
		d.ScanArgs(s.t.(*testing.T), "as", &name)
		s.receipts[name] = ack.Receipt
	}
	text := fmt.Sprintf("commit %d", ack.Commit)
	if ack.Duplicate {
		text += ", seen before"
	}
	for i, o := range ack.Outcomes {
		if o != sluice.Accepted {
			text += fmt.Sprintf("\nline %d: %s", i+1, o)
		}
	}
	return text
}

// step gives every drainer one chance to do what is due now.
func (s *script) step() []error {
	var errs []error
	for _, d := range s.drains.All() {
		for range 20 {
			wait, err := d.Step(s.t.Context())
			if err != nil {
				errs = append(errs, err)
			}
			if err != nil || wait > 0 {
				break
			}
		}
	}
	return errs
}

func (s *script) tell(errs []error) string {
	if len(errs) == 0 {
		return "ok"
	}
	return errors.Join(errs...).Error()
}

// shard makes a fault: `shard z down`, `shard z up`, `shard z loses 2`, `shard
// z answers-lost`, `shard a locks 1`, `shard a refuses bad`.
func (s *script) shard(d *datadriven.TestData) string {
	var words []string
	for _, a := range d.CmdArgs {
		words = append(words, a.Key)
	}
	db := s.dbs[words[0]]
	switch words[1] {
	case "down":
		db.SetHooks(mem.Hooks{BeforeCommit: func(*store.Batch) error { return errors.New("connection refused") }})
	case "answers-lost":
		db.SetHooks(mem.Hooks{AfterCommit: func(*store.Batch) error { return store.ErrUnknown }})
	case "up":
		db.SetHooks(mem.Hooks{})
	case "loses":
		var n int
		if _, err := fmt.Sscan(words[2], &n); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%d transactions gone", db.Lose(n))
	case "locks":
		locked := true
		db.SetHooks(mem.Hooks{Locked: lockedKey(s.rig, &locked)})
	case "refuses":
		db.SetHooks(mem.Hooks{Refuse: func(g *schema.Group, _ []byte, row []sluice.Value) *store.Refusal {
			if c := g.Column([]byte("title")); c != nil && string(row[c.Index].Bytes) == words[2] {
				return &store.Refusal{SQLState: "23514", Reason: "title is " + words[2]}
			}
			return nil
		}})
	default:
		return "unknown fault " + words[1]
	}
	return "ok"
}

func (s *script) read(d *datadriven.TestData) string {
	var id int64
	if _, err := fmt.Sscan(d.CmdArgs[1].Key, &id); err != nil {
		return err.Error()
	}
	row := s.row(d.CmdArgs[0].Key, id)
	var cols []string
	for name, v := range row.Columns {
		cols = append(cols, name+"="+string(v))
	}
	slices.Sort(cols)
	text := strings.Join(cols, " ")
	if !row.Found {
		text = "no row"
	}
	if row.StaleBy > 0 {
		text += fmt.Sprintf(" (stale by %s)", row.StaleBy)
	}
	return text
}

func (s *script) status() string {
	var lines []string
	streams := s.journal.Streams()
	for _, d := range s.drains.All() {
		pos := d.Position()
		lines = append(lines, fmt.Sprintf("%-14s on %s: %-8s applied %d, durable %d, queued %d, parked %d, rejected %d, rows %d",
			d.Group().FullName(), d.ShardName(), pos.State, pos.Applied, pos.Durable, d.Queued(streams), len(pos.Parked), pos.Rejected, pos.Counts.Rows))
	}
	return strings.Join(lines, "\n")
}

func (s *script) ledgerText() string {
	s.balance()
	var lines []string
	for _, r := range s.ledger.Rows(s.schema, s.journal, s.drains) {
		lines = append(lines, fmt.Sprintf("%-8s %-8s offered %d = acked %d + duplicate %d + refused %v; acked = applied %d + rejected %d + queued %d",
			r.Table, r.Group, r.Offered, r.Acked, r.Duplicate, r.Refused, r.Applied, r.Rejected, r.Queued))
	}
	return strings.Join(lines, "\n")
}
