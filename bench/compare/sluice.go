package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice.dev/sluice/bench/measure"
	"sluice.dev/sluice/client"
)

// sluice is the real binary, before PostgreSQL or SQLite.
type sluice struct {
	front
	s          *suite
	dir        string
	pg         *postgres // nil: SQLite
	keyed      bool      // over HTTP, with the identity of the write
	http, resp string
	client     *client.Client
}

func newSluicePostgres(s *suite, dir string) (system, error) {
	return &sluice{s: s, dir: dir, pg: &postgres{cluster: s.cluster}}, nil
}

func newSluiceKeyed(s *suite, dir string) (system, error) {
	return &sluice{s: s, dir: dir, pg: &postgres{cluster: s.cluster}, keyed: true}, nil
}

func newSluiceSQLite(s *suite, dir string) (system, error) {
	return &sluice{s: s, dir: dir}, nil
}

func (sl *sluice) start(ctx context.Context) error {
	config := filepath.Join(sl.s.Root, "bench/rivals/sluice/sluice.yaml")
	store := "sqlite:" + filepath.Join(sl.dir, "app.db")
	if sl.pg != nil {
		if err := sl.pg.start(ctx, false); err != nil {
			return err
		}
		store = sl.pg.here()
	}
	cmd := exec.Command(sl.s.binary("sluice"), "serve", "--json", "-c", config)
	cmd.Dir = sl.dir
	cmd.Env = append(os.Environ(), "RIVAL_STORE="+store, "RIVAL_DIR="+sl.dir)
	var doors struct{ HTTP, RESP string }
	var err error
	if sl.Process, err = measure.Start(cmd, &doors); err != nil {
		return err
	}
	sl.http, sl.resp = strings.TrimPrefix(doors.HTTP, "http://"), doors.RESP
	if sl.client, err = client.New(client.Options{URL: doors.HTTP, RetryBudget: -1}); err != nil {
		return err
	}
	return sl.Poll(ctx, sl.client.Ready)
}

func (sl *sluice) processes() []*measure.Process {
	if sl.pg == nil {
		return []*measure.Process{sl.Process}
	}
	return []*measure.Process{sl.Process, sl.pg.Process}
}

func (sl *sluice) dial(callers int) (writer, error) {
	if sl.keyed {
		return dialHTTP(sl.http, "/v1/writes", callers, func(b []byte, o op) []byte {
			return fmt.Appendf(b, `{"table":"posts","key":%d,"add":{"likes":1}}`, o.Key)
		})
	}
	return dialRESP(sl.resp, callers)
}

const settleTimeMax = 3 * time.Minute

func (sl *sluice) settle(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeMax)
	defer cancel()
	for {
		err := sl.client.Drain(ctx, nil)
		if err == nil || ctx.Err() != nil {
			return time.Now(), err
		}
	}
}

func (sl *sluice) holds(ctx context.Context) (held, error) {
	if sl.pg != nil {
		return sl.pg.holds(ctx, "log_clicks")
	}
	return sqliteHolds(ctx, filepath.Join(sl.dir, "app.db"), "log_clicks")
}

func (sl *sluice) copies(ctx context.Context) (map[uint64]int64, error) {
	if sl.pg != nil {
		return sl.pg.copies(ctx)
	}
	return sqliteCopies(ctx, filepath.Join(sl.dir, "app.db"))
}

func (sl *sluice) logs(ctx context.Context) (wal, own int64, err error) {
	wal = -1
	if sl.pg != nil {
		if wal, err = sl.pg.lsn(ctx); err != nil {
			return wal, 0, err
		}
	}
	own, err = sl.metric(ctx, "sluice_commit_bytes_total")
	return wal, own, err
}

// rows of SQLite are what Sluice's own metric says: the file does not tell.
func (sl *sluice) rows(ctx context.Context) (int64, error) {
	if sl.pg == nil {
		return sl.metric(ctx, "sluice_rows_total")
	}
	sl.retire(syscall.SIGTERM)
	return sl.pg.rows(ctx)
}

// metric sums a metric over its labels.
func (sl *sluice) metric(ctx context.Context, name string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+sl.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var sum float64
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if labelled, _, _ := strings.Cut(f[0], "{"); labelled == name {
			n, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return int64(sum), lines.Err()
}

func (sl *sluice) stop() {
	if sl.client != nil {
		sl.client.Close()
	}
	sl.retire(syscall.SIGKILL)
	if sl.pg != nil {
		sl.pg.stop()
	}
}
