package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice/bench/rivals/batch"
)

const (
	killCallers = 64
	// Between two kills it runs so long, and so long after the last.
	killAfterMin, killAfterMax = 400 * time.Millisecond, 1200 * time.Millisecond
	killPostsMax               = 5_000_000
)

func killName(r *rival) string { return "kill/" + r.name }

// kill measures what each row loses. Every write has a post of its own, so its
// like must be there exactly once; the callers send again what was not answered.
func (s *suite) kill(ctx context.Context) {
	for _, r := range rivals() {
		if s.out[r.name] != "" || ctx.Err() != nil || !s.only.MatchString(killName(&r)) {
			continue
		}
		k, err := s.killed(ctx, &r)
		k.Name, k.Retry = r.name, r.retry
		if err != nil {
			k.Failed = err.Error()
		}
		s.report.Kills = append(s.report.Kills, k)
		s.progress("%s: %+v", killName(&r), k)
	}
}

// trial is one row under kill -9.
type trial struct {
	sys  system
	acks []atomic.Uint32 // by post: how often it was sent, and acked added when it was answered
	next atomic.Uint64
	over atomic.Bool

	mu   sync.Mutex
	cond *sync.Cond
	w    writer
	gen  int // of w; grows with each restart
	err  error
}

const acked = 1 << 16

func (s *suite) killed(ctx context.Context, r *rival) (k Kill, err error) {
	sys, done, err := s.system(r)
	if err != nil {
		return k, err
	}
	defer done()
	t := &trial{sys: sys, acks: make([]atomic.Uint32, killPostsMax)}
	t.cond = sync.NewCond(&t.mu)
	if err := t.restart(ctx); err != nil {
		return k, err
	}
	var wg sync.WaitGroup
	for i := range killCallers {
		wg.Go(func() { t.call(i) })
	}
	for range s.o.kills {
		time.Sleep(killAfterMin + rand.N(killAfterMax-killAfterMin))
		killAll(sys.processes())
		k.Kills++
		if err = t.restart(ctx); err != nil {
			break
		}
	}
	time.Sleep(killAfterMin)
	t.over.Store(true)
	t.mu.Lock()
	t.err = err
	t.cond.Broadcast()
	t.mu.Unlock()
	wg.Wait()
	if err == nil {
		err = t.err
	}
	if err != nil {
		return k, err
	}
	defer t.w.close()
	if err := sys.settle(ctx); err != nil {
		return k, err
	}
	return k, t.count(ctx, &k)
}

// restart starts the system, again after a kill, and gives the callers a new client.
func (t *trial) restart(ctx context.Context) error {
	err := t.sys.start(ctx)
	var w writer
	if err == nil {
		w, err = t.sys.dial(killCallers)
	}
	if err != nil {
		return fmt.Errorf("start it again: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.w != nil {
		t.w.close()
	}
	t.w = w
	t.gen++
	t.cond.Broadcast()
	return nil
}

// client waits for a client that is younger than the one that failed.
func (t *trial) client(failed int) (writer, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.gen <= failed && t.err == nil {
		t.cond.Wait()
	}
	if t.err != nil {
		return nil, 0
	}
	return t.w, t.gen
}

// call is one caller: it goes on with a write until it is answered, and never
// gives one up but when the trial has failed.
func (t *trial) call(caller int) {
	w, gen := t.client(0)
	for !t.over.Load() {
		post := t.next.Add(1)
		if post >= killPostsMax {
			return
		}
		o := op{batch.Write{Kind: batch.Like, Key: post}, fmt.Sprintf("write-%d", post)}
		for {
			if w == nil {
				return
			}
			t.acks[post].Add(1)
			err := w.write(caller, o)
			if err == nil {
				t.acks[post].Add(acked)
				break
			}
			w, gen = t.younger(err, w, gen)
		}
	}
}

// younger gives the client to send again by. A refusal is no lost connection:
// a server that is still coming up, or a database that it has lost, may refuse.
func (t *trial) younger(err error, w writer, gen int) (writer, int) {
	const again = 20 * time.Millisecond
	if t.over.Load() || isRefusal(err) {
		time.Sleep(again)
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.err != nil {
			return nil, 0
		}
		return t.w, t.gen
	}
	return t.client(gen)
}

func (t *trial) count(ctx context.Context, k *Kill) error {
	there, err := t.sys.copies(ctx)
	if err != nil {
		return err
	}
	for post := uint64(1); post <= min(t.next.Load(), killPostsMax-1); post++ {
		n := t.acks[post].Load()
		if n == 0 {
			continue
		}
		k.Sent++
		if n%acked > 1 {
			k.Retried++
		}
		if n >= acked {
			k.Acked++
			if there[post] > 0 {
				k.Present++
			} else {
				k.Lost++
			}
		}
		if there[post] > 1 {
			k.Doubled++
		}
	}
	return nil
}

func isRefusal(err error) bool {
	var r *refusal
	var q *pgconn.PgError
	return errors.As(err, &r) || errors.As(err, &q)
}
