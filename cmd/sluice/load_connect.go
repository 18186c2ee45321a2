package main

import (
	"context"
	"errors"
	"fmt"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
)

// connect makes the loader send through c. A new load gets a producer id, one
// that goes on must meet the journal it began with: there, and only there, its
// numbers mean something.
func (l *loader) connect(ctx context.Context, p *program, c *client.Client) error {
	l.send = func(ctx context.Context, id sluice.Identity, body []byte) (sent, error) {
		a, err := c.WriteChunk(ctx, id, body)
		var known *sluice.Error
		if err = p.unreachable(err); err != nil && !errors.As(err, &known) && ctx.Err() == nil {
			// An answer that was cut short: the same number asks again.
			err = sluice.Errorf(sluice.Unavailable, "answer_lost", "the answer was cut short: %w", err)
		}
		return sentOf(a), err
	}
	journal := ""
	st, err := c.Status(ctx)
	if sluice.CodeOf(err) == sluice.Denied {
		journal, err = p.at, nil // a client that may only write: the URL has to do
	} else if err == nil {
		journal = st.Journal.ID
	}
	if err != nil {
		return err
	}
	if l.st.Producer == 0 {
		l.st.Journal = journal
		l.st.Producer, err = c.NewProducer(ctx)
		return err
	}
	if l.st.Journal != journal {
		return fmt.Errorf("this load began with another journal (%s) than the one of %s (%s); go on with that server, or --restart to load all of it here",
			l.st.Journal, p.at, journal)
	}
	return nil
}

func sentOf(a client.Accepted) sent {
	out := sent{accepted: a.Accepted}
	for _, r := range a.Outcomes {
		out.faults = append(out.faults, lineFault{index: r.Line - 1, reason: r.Reason, detail: r.Detail})
	}
	return out
}

// loadError adds what to do to an error that ends a load.
func loadError(err error) error {
	var e *sluice.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Reason {
	case "identity_reused":
		return fmt.Errorf("%w; the file, the template or this program changed since the load began, so that it cannot go on: bring the old one back, or --restart", err)
	case "producer_forgotten":
		return fmt.Errorf("%w; the load rested for too long: --restart loads all of it, and counts again what was loaded before", err)
	default:
		return err
	}
}
