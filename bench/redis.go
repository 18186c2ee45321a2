package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"sluice.dev/sluice/bench/measure"
)

// redisServer is the rival at the RESP door. Rewriting its log in the
// background would cost it time now and then, so that is off.
type redisServer struct {
	*measure.Process
	addr string
}

func (s *suite) serveRedis(ctx context.Context) (*redisServer, error) {
	dir, err := s.newDir()
	if err != nil {
		return nil, err
	}
	port, err := measure.FreePort()
	if err != nil {
		return nil, err
	}
	p, err := measure.Start(exec.Command("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0", "--logfile", "redis.log"), nil)
	if err != nil {
		return nil, fmt.Errorf("start redis-server: %w (`make deps` installs it)", err)
	}
	r := &redisServer{Process: p, addr: "127.0.0.1:" + strconv.Itoa(port)}
	if err := p.Poll(ctx, func(context.Context) error {
		c, err := dialRESP(r.addr)
		if err != nil {
			return err
		}
		defer c.close()
		return c.ask("PING")
	}); err != nil {
		p.End(syscall.SIGKILL)
		return nil, err
	}
	return r, nil
}

// benchmark is one run of redis-benchmark.
type benchmark struct {
	addr     string
	clients  int
	pipeline int
	requests int
	keys     int // 1: a single hot key
}

// whole is how many requests are really sent: redis-benchmark fills its last pipeline.
func (b *benchmark) whole() int {
	return (b.requests + b.pipeline - 1) / b.pipeline * b.pipeline
}

// run gives the requests per second.
func (b *benchmark) run(ctx context.Context) (float64, error) {
	host, port, _ := strings.Cut(b.addr, ":")
	key := "posts:7"
	args := []string{"-h", host, "-p", port, "-c", strconv.Itoa(b.clients), "-P", strconv.Itoa(b.pipeline), "-n", strconv.Itoa(b.whole()), "--csv"}
	if b.keys > 1 {
		args = append(args, "-r", strconv.Itoa(b.keys))
		key = "posts:__rand_int__"
	}
	out, err := exec.CommandContext(ctx, "redis-benchmark", append(args, "HINCRBY", key, "likes", "1")...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w\n%s", err, out)
	}
	if i := bytes.Index(out, []byte("Error from server")); i >= 0 {
		return 0, fmt.Errorf("redis-benchmark: %.300s", out[i:])
	}
	r := csv.NewReader(bytes.NewReader(out))
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	if err != nil {
		return 0, fmt.Errorf("redis-benchmark: %w\n%s", err, out)
	}
	for _, l := range lines {
		if len(l) > 1 && strings.HasPrefix(l[0], "HINCRBY") {
			return strconv.ParseFloat(l[1], 64)
		}
	}
	return 0, fmt.Errorf("redis-benchmark said nothing of its rate:\n%s", out)
}
