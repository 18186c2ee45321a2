package main

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

func httpScenario(ctx context.Context, s *suite) error {
	for _, run := range []struct {
		what string
		goal float64
		spec loadSpec
	}{
		{"single writes, 256 connections", 20_000, loadSpec{Door: "http", Conns: 256, Batch: 1}},
		{"NDJSON, 8 connections, 20,000 lines a request", 300_000, loadSpec{Door: "ndjson", Conns: 8, Batch: 20_000}},
	} {
		run.spec.Write, run.spec.Keys = "increment", manyKeys
		run.spec.Time = pick(s, 10*time.Second, 1500*time.Millisecond)
		if err := httpRun(ctx, s, run.what, run.goal, run.spec); err != nil {
			return fmt.Errorf("%s: %w", run.what, err)
		}
	}
	return nil
}

func httpRun(ctx context.Context, s *suite, what string, goal float64, spec loadSpec) error {
	sv, err := s.serve(ctx, sqliteConfig)
	if err != nil {
		return err
	}
	defer sv.End(syscall.SIGKILL)
	spec.Addr = sv.http
	r, err := s.load(ctx, spec)
	if err != nil {
		return err
	}
	if err := sv.drain(ctx); err != nil {
		return err
	}
	total, err := sv.sqliteValue(ctx, sumPosts)
	if err != nil {
		return err
	}
	if err := wantTotal("sum of likes", total, int64(r.Writes)); err != nil {
		return err
	}
	s.add(Row{What: "HTTP, " + what, Unit: "writes/s", Sluice: []float64{r.perSecond()}, Durable: "fdatasync", Goal: atLeast(goal)})
	s.add(Row{What: "HTTP, " + what + ", p50 / p99 / p99.9", Unit: "ms", Sluice: r.Millis, Durable: "fdatasync"})
	s.addMemory("HTTP, "+what, sv.stop())
	return nil
}
