package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"sluice.dev/sluice/bench/measure"
)

type redisServer struct {
	front
	s    *suite
	dir  string
	addr string
	db   *redis.Client // looks on
}

func newRedis(s *suite, dir string) (system, error) { return &redisServer{s: s, dir: dir}, nil }

func (r *redisServer) start(ctx context.Context) error {
	port, err := measure.FreePort()
	if err != nil {
		return err
	}
	r.addr = "127.0.0.1:" + strconv.Itoa(port)
	cmd := exec.Command("redis-server", filepath.Join(r.s.Root, "bench/rivals/redis/redis.conf"), "--port", strconv.Itoa(port), "--dir", r.dir)
	if r.Process, err = measure.Start(cmd, nil); err != nil {
		return fmt.Errorf("start redis-server: %w (`make deps` installs it)", err)
	}
	r.db = redis.NewClient(&redis.Options{Addr: r.addr, MaxRetries: -1})
	return r.Poll(ctx, func(ctx context.Context) error { return r.db.Ping(ctx).Err() })
}

func (r *redisServer) processes() []*measure.Process { return []*measure.Process{r.Process} }

func (r *redisServer) dial(callers int) (writer, error) {
	w, err := dialRESP(r.addr, callers)
	if err == nil {
		w.oneLog = true
	}
	return w, err
}

func (r *redisServer) settle(context.Context) (time.Time, error) { return time.Now(), nil }
func (r *redisServer) logs(context.Context) (wal, own int64, err error) {
	return -1, sizeOf(filepath.Join(r.dir, "appendonlydir")), nil
}
func (r *redisServer) rows(context.Context) (int64, error) { return -1, nil }

func (r *redisServer) holds(ctx context.Context) (h held, err error) {
	all, err := r.copies(ctx)
	if err != nil {
		return h, err
	}
	for _, n := range all {
		h.likes += n
	}
	h.events, err = r.db.XLen(ctx, "log").Result()
	return h, err
}

func (r *redisServer) copies(ctx context.Context) (map[uint64]int64, error) {
	out := map[uint64]int64{}
	var cursor uint64
	for {
		keys, next, err := r.db.Scan(ctx, cursor, "posts:*", 1000).Result()
		if err != nil {
			return nil, err
		}
		pipe := r.db.Pipeline()
		got := make([]*redis.StringCmd, len(keys))
		for i, k := range keys {
			got[i] = pipe.HGet(ctx, k, "likes")
		}
		if len(keys) > 0 {
			if _, err := pipe.Exec(ctx); err != nil {
				return nil, err
			}
		}
		// A scan may name a key twice, so what a key holds is set and not added.
		for i, k := range keys {
			id, err := strconv.ParseUint(strings.TrimPrefix(k, "posts:"), 10, 64)
			if err != nil {
				return nil, err
			}
			if out[id], err = got[i].Int64(); err != nil {
				return nil, err
			}
		}
		if cursor = next; cursor == 0 {
			return out, nil
		}
	}
}

func (r *redisServer) stop() {
	if r.db != nil {
		r.db.Close()
	}
	r.retire(syscall.SIGKILL)
}
