package main

import (
	"context"
	"fmt"
	"time"

	"sluice.dev/sluice/internal/console"
)

// benchKills is how often each side's process is killed, evenly over --seconds.
const benchKills = 5

// benchKill is what became of one side's writes.
type benchKill struct {
	Side         string  `json:"side"`
	Kills        int     `json:"kills"`
	Acknowledged int64   `json:"acknowledged"`
	Present      int64   `json:"present"`
	Lost         int64   `json:"lost"`
	Doubled      int64   `json:"doubled"`
	Back         float64 `json:"back_s"` // the longest time until it took writes again
}

// killed is a side's process as the kills see it.
type killed struct {
	side  string
	kill  func() error
	start func(context.Context) error
	end   func(context.Context) error // when everything is answered
}

// killBoth kills the process that takes the writes: Sluice, and the application
// that writes to the database itself. The database lives on. On both sides a
// client sends again what was not answered.
func (b *bench) killBoth(ctx context.Context) error {
	if err := b.killDirect(ctx); err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	if err := b.killSluice(ctx); err != nil {
		return fmt.Errorf("sluice: %w", err)
	}
	return nil
}

var benchMixed = benchLoad{mixed: true}

func (b *bench) killDirect(ctx context.Context) error {
	dsn, err := b.db.sluiceURL()
	if err != nil {
		return err
	}
	app := newDirectApp(dsn, b.f.clients)
	if err := app.start(ctx); err != nil {
		return err
	}
	defer app.stop()
	s := &sending{load: benchMixed, tally: b.direct, keys: b.f.keys}
	for range b.f.clients {
		s.writers = append(s.writers, func(ctx context.Context, r *benchRequest) error {
			return app.write(ctx, directWrite{r.events, r.keys[0], r.first})
		})
	}
	return b.killUnder(ctx, s, &killed{"direct", app.kill, app.start, func(context.Context) error { app.stop(); return nil }})
}

func (b *bench) killSluice(ctx context.Context) error {
	if err := b.server.start(ctx); err != nil {
		return err
	}
	r := &benchRun{Workload: "kill -9", How: "sluice", load: benchMixed, writers: (*bench).sluiceWriter}
	s, end, err := b.clients(ctx, r)
	if err != nil {
		return err
	}
	defer end()
	return b.killUnder(ctx, s, &killed{"sluice", b.server.kill, b.server.start, func(ctx context.Context) error {
		if err := b.settle(ctx, r); err != nil {
			return err
		}
		return b.server.stop()
	}})
}

// killUnder kills again and again while the clients send, and compares.
func (b *bench) killUnder(ctx context.Context, s *sending, k *killed) error {
	before, err := b.db.compare(ctx, k.side, s.tally)
	if err != nil {
		return err
	}
	result := benchKill{Side: k.side}
	err = s.send(ctx, func(ctx context.Context) error {
		for result.Kills < benchKills {
			if err := pause(ctx, b.sendTime()/(benchKills+1)); err != nil {
				return err
			}
			from := time.Now()
			if err := k.kill(); err != nil {
				return err
			}
			result.Kills++
			if err := k.start(ctx); err != nil {
				return fmt.Errorf("after kill -9: %w", err)
			}
			result.Back = max(result.Back, time.Since(from).Seconds())
			b.drawKill(&result, s)
		}
		return pause(ctx, b.sendTime()/(benchKills+1))
	})
	if err != nil {
		return err
	}
	if err := k.end(ctx); err != nil {
		return err
	}
	// A killed client's last statements may still be under way in the database.
	if _, err := b.db.rows(ctx); err != nil {
		return err
	}
	after, err := b.db.compare(ctx, k.side, s.tally)
	if err != nil {
		return err
	}
	c := after.minus(before)
	result.Acknowledged, result.Present, result.Lost, result.Doubled = c.Acknowledged, c.Present, c.Lost, c.Doubled
	b.result.Kill = append(b.result.Kill, result)
	b.sayKill(&result)
	return nil
}

func killTable(out *console.Console, kills []benchKill) *console.Table {
	l, r := console.Left, console.Right
	t := &console.Table{Columns: []console.Column{l("KILL -9"), r("KILLS"), r("ACKNOWLEDGED"), r("PRESENT"), r("LOST"), r("DOUBLED"), r("BACK WITHIN")}}
	for i := range kills {
		k := &kills[i]
		t.Row(out.Bold(k.Side), console.Count(k.Kills), console.Count(k.Acknowledged), console.Count(k.Present), console.Count(k.Lost),
			console.Count(k.Doubled), console.Seconds(k.Back))
	}
	return t
}
