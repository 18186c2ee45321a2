package main

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/bench/rivals/batch"
)

// inPostgres is a rival whose writes end up in PostgreSQL: pgbatch, NATS and
// Bento with a program in front, and without one the application itself.
type inPostgres struct {
	front
	*postgres
	dir     string
	addr    string
	command func(*inPostgres) (*exec.Cmd, error) // nil: nothing in front
	silent  bool                                 // the front says nothing when it is ready
	client  func(addr string, callers int) (writer, error)
	follows bool // rows follow after the answer
}

func newDirect(s *suite, dir string) (system, error) {
	return &inPostgres{postgres: &postgres{cluster: s.cluster}, dir: dir}, nil
}

func newHandBatched(s *suite, dir string) (system, error) {
	return &inPostgres{postgres: &postgres{cluster: s.cluster}, dir: dir,
		client: func(addr string, callers int) (writer, error) { return dialRESP(addr, callers) },
		command: func(p *inPostgres) (*exec.Cmd, error) {
			return exec.Command(s.binary("pgbatch"), "--postgres", p.here()), nil
		}}, nil
}

func newNATS(s *suite, dir string) (system, error) {
	return &inPostgres{postgres: &postgres{cluster: s.cluster}, dir: dir, follows: true,
		client: func(addr string, callers int) (writer, error) { return dialNATS(addr, callers) },
		command: func(p *inPostgres) (*exec.Cmd, error) {
			return exec.Command(s.binary("nats"), "--dir", filepath.Join(dir, "stream"), "--postgres", p.here()), nil
		}}, nil
}

func newBento(s *suite, dir string) (system, error) {
	return &inPostgres{postgres: &postgres{cluster: s.cluster}, dir: dir, silent: true,
		client: func(addr string, callers int) (writer, error) { return dialHTTP(addr, "/w", callers, bentoBody) },
		command: func(p *inPostgres) (*exec.Cmd, error) {
			port, err := measure.FreePort()
			if err != nil {
				return nil, err
			}
			p.addr = "127.0.0.1:" + strconv.Itoa(port)
			cmd := exec.Command(s.binary("bento"), "-c", filepath.Join(s.Root, "bench/rivals/bento/config.yaml"))
			cmd.Env = append(os.Environ(), "ADDR="+p.addr, "POSTGRES="+p.here())
			return cmd, nil
		}}, nil
}

func bentoBody(b []byte, o op) []byte {
	switch o.Kind {
	case batch.Place:
		return fmt.Appendf(b, `{"kind":"P","key":%d,"place":%q}`, o.Key, batch.Where(o.N))
	case batch.Event:
		return fmt.Appendf(b, `{"kind":"E","key":%d,"what":%q,"n":%d}`, o.Key, batch.What, o.N)
	}
	return fmt.Appendf(b, `{"kind":"L","key":%d}`, o.Key)
}

func (p *inPostgres) start(ctx context.Context) error {
	if err := p.postgres.start(ctx, true); err != nil || p.command == nil {
		return err
	}
	cmd, err := p.command(p)
	if err != nil {
		return err
	}
	cmd.Dir = p.dir
	if p.silent {
		if p.front.Process, err = measure.Start(cmd, nil); err != nil {
			return err
		}
		return p.front.Poll(ctx, func(context.Context) error {
			c, err := net.DialTimeout("tcp", p.addr, dialTimeMax)
			if err == nil {
				err = c.Close()
			}
			return err
		})
	}
	var hello struct{ Addr string }
	p.front.Process, err = measure.Start(cmd, &hello)
	p.addr = hello.Addr
	return err
}

func (p *inPostgres) processes() []*measure.Process {
	if p.command == nil {
		return []*measure.Process{p.postgres.Process}
	}
	return []*measure.Process{p.front.Process, p.postgres.Process}
}

func (p *inPostgres) dial(callers int) (writer, error) {
	if p.command == nil {
		return dialDirect(p.here(), callers)
	}
	return p.client(p.addr, callers)
}

// settle waits until the consumer has nothing left; what was fetched before a
// kill comes again only after its time to be acknowledged.
func (p *inPostgres) settle(ctx context.Context) (time.Time, error) {
	for from := time.Now(); p.follows; time.Sleep(settleStep) {
		left, err := backlogNATS(p.addr)
		if err != nil {
			return from, err
		}
		if left == 0 {
			break
		}
		if time.Since(from) > settleTimeMax {
			return from, fmt.Errorf("the consumer does not come to an end: %d messages are left", left)
		}
	}
	return time.Now(), ctx.Err()
}

const settleStep = 10 * time.Millisecond

func (p *inPostgres) holds(ctx context.Context) (held, error) { return p.postgres.holds(ctx, "log") }

func (p *inPostgres) logs(ctx context.Context) (wal, own int64, err error) {
	own = -1
	if p.follows {
		own = sizeOf(filepath.Join(p.dir, "stream"))
	}
	wal, err = p.lsn(ctx)
	return wal, own, err
}

// sizeOf sums the files below a folder.
func sizeOf(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // what goes away while it is looked at counts nothing
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

func (p *inPostgres) rows(ctx context.Context) (int64, error) {
	p.retire(syscall.SIGKILL)
	// Its backends notice that the connection is gone, count, and end.
	if err := p.postgres.Poll(ctx, func(ctx context.Context) error {
		n, err := p.number(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		if err == nil && n > 0 {
			err = fmt.Errorf("%d connections are still there", n)
		}
		return err
	}); err != nil {
		return 0, err
	}
	return p.postgres.rows(ctx)
}

func (p *inPostgres) stop() {
	p.retire(syscall.SIGKILL)
	p.postgres.stop()
}
