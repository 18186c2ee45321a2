package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/bench/rivals/batch"
)

const (
	killCallers = 64
	// Between two kills it runs so long, and so long after the last.
	killAfterMin, killAfterMax = 400 * time.Millisecond, 1200 * time.Millisecond
	killPostsMax               = 5_000_000
	killTimeMax                = time.Minute
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
		s.Progress("%s: %+v", killName(&r), k)
	}
}

// trial is one row under kill -9.
type trial struct {
	sys  system
	acks []atomic.Uint32 // by post: how often it was sent, and acked added when it was answered
	next atomic.Uint64
	over atomic.Bool

	mu  sync.Mutex
	w   writer
	gen int // of w; grows with each restart

	last atomic.Pointer[error] // of a write
}

const acked = 1 << 16

func (s *suite) killed(ctx context.Context, r *rival) (k Kill, err error) {
	sys, done, err := s.system(r)
	if err != nil {
		return k, err
	}
	defer done()
	t := &trial{sys: sys, acks: make([]atomic.Uint32, killPostsMax)}
	ctx, cancel := context.WithTimeout(ctx, killTimeMax)
	defer cancel()
	if err := t.restart(ctx); err != nil {
		return k, err
	}
	var wg sync.WaitGroup
	for i := range killCallers {
		wg.Go(func() { t.call(ctx, i) })
	}
	for range s.o.kills {
		time.Sleep(killAfterMin + rand.N(killAfterMax-killAfterMin))
		measure.KillAll(sys.processes())
		k.Kills++
		if err = t.restart(ctx); err != nil {
			cancel()
			wg.Wait()
			return k, err
		}
	}
	time.Sleep(killAfterMin)
	t.over.Store(true)
	wg.Wait()
	defer t.w.close()
	if ctx.Err() != nil {
		return k, fmt.Errorf("not every write was answered in %s; the last error: %w", killTimeMax, *t.last.Load())
	}
	if _, err := sys.settle(ctx); err != nil {
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
	return nil
}

// call is one caller: it goes on with a write until it is answered, and gives
// one up only when the whole trial takes too long.
func (t *trial) call(ctx context.Context, caller int) {
	for !t.over.Load() && ctx.Err() == nil {
		post := t.next.Add(1)
		if post >= killPostsMax {
			return
		}
		o := op{batch.Write{Kind: batch.Like, Key: post}, fmt.Sprintf("write-%d", post)}
		for ctx.Err() == nil {
			w, gen := t.client()
			t.acks[post].Add(1)
			err := w.write(caller, o)
			if err == nil {
				t.acks[post].Add(acked)
				break
			}
			t.last.Store(&err)
			t.pause(ctx, gen)
		}
	}
}

func (t *trial) client() (writer, int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.w, t.gen
}

// pause waits for a client that is younger than the one that failed, but no
// more than a moment: a server that is up may also refuse, or close a connection.
func (t *trial) pause(ctx context.Context, failed int) {
	const step, most = 5 * time.Millisecond, 20
	for range most {
		if _, gen := t.client(); gen > failed || ctx.Err() != nil {
			return
		}
		time.Sleep(step)
	}
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
