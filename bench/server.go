package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/client"
)

const (
	drainTimeMax = 5 * time.Minute

	memoryMaxMiB = 512
)

// server is the real binary.
type server struct {
	*measure.Process
	dir, http, resp string // resp and http are host:port
	client          *client.Client
}

// serve starts sluice in a folder of its own. %DIR% in the config stands for it.
func (s *suite) serve(ctx context.Context, config string) (*server, error) {
	dir, err := s.newDir()
	if err != nil {
		return nil, err
	}
	config = "listen: {http: \"127.0.0.1:0\", resp: \"127.0.0.1:0\"}\n" + strings.ReplaceAll(config, "%DIR%", dir)
	if err := os.WriteFile(filepath.Join(dir, "sluice.yaml"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	return s.serveAgain(ctx, dir)
}

// serveAgain starts sluice in a folder that was used before and returns when it is ready.
func (s *suite) serveAgain(ctx context.Context, dir string) (*server, error) {
	bin, err := s.binary(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "serve", "--json", "-c", filepath.Join(dir, "sluice.yaml"))
	cmd.Dir = dir
	var doors struct{ HTTP, RESP string }
	p, err := measure.Start(cmd, &doors)
	if err != nil {
		return nil, err
	}
	sv := &server{Process: p, dir: dir, http: strings.TrimPrefix(doors.HTTP, "http://"), resp: doors.RESP}
	if sv.client, err = client.New(client.Options{URL: doors.HTTP, RetryBudget: -1}); err == nil {
		err = sv.Poll(ctx, sv.client.Ready)
	}
	if err != nil {
		sv.End(syscall.SIGKILL)
		return nil, fmt.Errorf("start sluice: %w", err)
	}
	return sv, nil
}

// drain returns when the database has everything.
func (sv *server) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainTimeMax)
	defer cancel()
	for {
		err := sv.client.Drain(ctx, nil)
		if err == nil || ctx.Err() != nil {
			return err
		}
		// A drain is answered after limits.wait_max at the latest; stuck streams
		// are an error at once, and show in the status.
		st, serr := sv.client.Status(ctx)
		if serr != nil {
			return errors.Join(err, serr)
		}
		for _, stream := range st.Streams {
			if stream.State == "stopped" {
				return err
			}
		}
	}
}

// stop ends the server and gives what memory it took at most.
func (sv *server) stop() float64 {
	peak := sv.PeakMiB()
	sv.client.Close()
	sv.End(syscall.SIGTERM)
	return peak
}

// addMemory is the row about a server's memory.
func (s *suite) addMemory(what string, peak float64) {
	s.add(Row{What: "resident memory at most, " + what, Unit: "MiB", Sluice: []float64{peak}, Durable: "-", Goal: atMost(memoryMaxMiB)})
}

// sqliteValue asks the database file itself, past the server.
func (sv *server) sqliteValue(ctx context.Context, query string) (int64, error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(sv.dir, "app.db")+"?mode=ro")
	if err != nil {
		return 0, err
	}
	defer db.Close()
	var n sql.NullInt64
	return n.Int64, db.QueryRowContext(ctx, query).Scan(&n)
}

// wantTotal refuses a figure that a broken path made: after a drain the
// database must hold exactly what was acknowledged.
func wantTotal(what string, got, want int64) error {
	if got != want {
		return fmt.Errorf("%s: there are %d, want %d: the figures of this part are void", what, got, want)
	}
	return nil
}
