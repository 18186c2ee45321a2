package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sluice.dev/sluice/bench/measure"
)

// postgresServer is a PostgreSQL of this program's own: fsync on, and what a
// small server would be given.
type postgresServer struct{ *measure.Postgres }

const postgresSettings = `
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 60
shared_buffers = 512MB
max_wal_size = 4GB
log_min_messages = warning
`

func (s *suite) servePostgres() (*postgresServer, error) {
	dir, err := s.newDir()
	if err != nil {
		return nil, err
	}
	pg, err := measure.NewPostgres(dir, postgresSettings)
	if err != nil {
		return nil, err
	}
	return &postgresServer{pg}, pg.Start()
}

// stop is an immediate stop: the folder goes anyway.
func (p *postgresServer) stop() { p.StopImmediate() }

func (p *postgresServer) url() string { return p.DSN("postgres") }

func (p *postgresServer) exec(ctx context.Context, statements ...string) error {
	return p.Run(ctx, p.url(), statements...)
}

// inSchema asks Sluice's tables for a number.
func (p *postgresServer) inSchema(ctx context.Context, query string) (int64, error) {
	return p.Number(ctx, p.url()+"&search_path=sluice_bench", query)
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([\d.]+) \(without initial connection time\)`)

// pgbench runs a script with 16 clients that use prepared statements and commit
// each by itself, and gives the transactions per second. pgbench takes less of
// the cores than a client in Go, which is to the rival's good.
func (p *postgresServer) pgbench(ctx context.Context, script string, seconds int) (float64, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(p.BinDir, "pgbench"), "-h", "127.0.0.1", "-p", strconv.Itoa(p.Port), "-U", "postgres",
		"-n", "-M", "prepared", "-c", strconv.Itoa(directClients), "-j", "2", "-T", strconv.Itoa(seconds), "-f", "/dev/stdin", "postgres")
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	m := tpsLine.FindSubmatch(out)
	if err != nil || m == nil {
		return 0, fmt.Errorf("pgbench: %w\n%s", err, out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
