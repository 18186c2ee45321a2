package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

const (
	sqliteConfig = `
stores: {local: "sqlite:%DIR%/app.db"}
journal: {dir: "%DIR%/journal"}
tables:
  posts: {key: {id: int64}, columns: {likes: int64 sum}}
`
	manyKeys  = 1_000_000
	sumPosts  = "SELECT sum(likes) FROM posts"
	redisName = "redis-server, appendfsync always"
)

// redisDuel is one setting of redis-benchmark, on both sides.
type redisDuel struct {
	what              string
	clients, pipeline int
	keys              int
	requests, quick   int
	goal              Goal
}

func respScenario(ctx context.Context, s *suite) error {
	duels := []redisDuel{
		{"1M keys, 50 clients", 50, 1, manyKeys, 600_000, 30_000, ratioAtLeast(1)},
		{"1M keys, 50 clients, pipeline 16", 50, 16, manyKeys, 3_000_000, 200_000, ratioAtLeast(2)},
		{"1M keys, 100 clients, pipeline 64", 100, 64, manyKeys, 5_000_000, 500_000, ratioAtLeast(3)},
		{"one hot key, 200 clients, pipeline 256", 200, 256, 1, 15_000_000, 1_500_000, atLeast(1_000_000)},
	}
	for _, d := range duels {
		if err := d.fight(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", d.what, err)
		}
	}
	return nil
}

// fight lets both sides run in turns; the median round counts.
func (d *redisDuel) fight(ctx context.Context, s *suite) error {
	redis, err := s.serveRedis(ctx)
	if err != nil {
		return err
	}
	defer redis.End(syscall.SIGKILL)
	sv, err := s.serve(ctx, sqliteConfig)
	if err != nil {
		return err
	}
	defer sv.End(syscall.SIGKILL)
	rounds := pick(s, 5, 1)
	b := benchmark{clients: d.clients, pipeline: d.pipeline, keys: d.keys, requests: pick(s, d.requests, d.quick) / rounds}
	var ours, theirs []float64
	for range rounds {
		for _, side := range []struct {
			addr  string
			rates *[]float64
		}{{redis.addr, &theirs}, {sv.resp, &ours}} {
			b.addr = side.addr
			rate, err := b.run(ctx)
			if err != nil {
				return err
			}
			*side.rates = append(*side.rates, rate)
		}
		// The rival is not to pay for what is still being drained.
		if err := sv.drain(ctx); err != nil {
			return err
		}
	}
	total, err := sv.sqliteValue(ctx, sumPosts)
	if err != nil {
		return err
	}
	if err := wantTotal("sum of likes", total, int64(b.whole()*rounds)); err != nil {
		return err
	}
	s.add(Row{What: "HINCRBY, " + d.what, Unit: "ops/s", Sluice: []float64{median(ours)}, Rival: []float64{median(theirs)}, Against: redisName,
		Durable: "fdatasync", RivalDurable: "fdatasync", Goal: d.goal})
	s.addMemory(d.what, sv.stop())
	return nil
}

// respLatencyScenario measures with a client of its own: the percentiles of
// redis-benchmark are coarse. The same client measures both sides.
func respLatencyScenario(ctx context.Context, s *suite) error {
	redis, err := s.serveRedis(ctx)
	if err != nil {
		return err
	}
	defer redis.End(syscall.SIGKILL)
	sv, err := s.serve(ctx, sqliteConfig)
	if err != nil {
		return err
	}
	defer sv.End(syscall.SIGKILL)
	var sent int64
	for _, clients := range []int{1, 64} {
		var ours, theirs tally
		for range pick(s, 4, 1) {
			t, err := ackTimes(ctx, s, redis.addr, clients)
			if err != nil {
				return fmt.Errorf("redis: %w", err)
			}
			theirs.merge(t)
			if t, err = ackTimes(ctx, s, sv.resp, clients); err != nil {
				return fmt.Errorf("sluice: %w", err)
			}
			ours.merge(t)
			if err := sv.drain(ctx); err != nil {
				return err
			}
		}
		sent += int64(ours.ops)
		row := Row{What: fmt.Sprintf("HINCRBY, %d clients, ack p50 / p99 / p99.9", clients), Unit: "ms", Sluice: ours.millis(), Rival: theirs.millis(),
			Against: redisName, Durable: "fdatasync", RivalDurable: "fdatasync"}
		s.add(row)
		row.What, row.Unit = fmt.Sprintf("HINCRBY, %d clients, this client", clients), "ops/s"
		row.Sluice, row.Rival = []float64{ours.perSecond()}, []float64{theirs.perSecond()}
		s.add(row)
	}
	total, err := sv.sqliteValue(ctx, sumPosts)
	if err != nil {
		return err
	}
	return wantTotal("sum of likes", total, sent)
}

func ackTimes(ctx context.Context, s *suite, addr string, clients int) (*tally, error) {
	conns := make([]*respConn, clients)
	for i := range conns {
		var err error
		if conns[i], err = dialRESP(addr); err != nil {
			return nil, err
		}
		defer conns[i].close()
	}
	return closedLoop(ctx, clients, pick(s, 3*time.Second, time.Second), func(i int) error {
		conns[i].putIncrement(rand.Uint64N(manyKeys))
		return conns[i].flush(1)
	})
}
