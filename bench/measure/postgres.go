package measure

import (
	"context"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/internal/store/pgtest"
)

// Postgres is a private PostgreSQL server that can be measured. It is the one
// that tests run on, with other settings.
type Postgres struct{ *pgtest.Cluster }

// NewPostgres makes the data of a server in an empty folder. Start starts it,
// StopImmediate stops it; the data goes with the folder. Settings are text of
// postgresql.conf.
func NewPostgres(dir, settings string) (*Postgres, error) {
	c, err := pgtest.New(dir, settings)
	if err != nil {
		return nil, err
	}
	return &Postgres{c}, nil
}

// Process is the server as it runs now, from its last Start on.
func (p *Postgres) Process() *Process {
	server, exited := p.Running()
	return &Process{name: "postgres", proc: server, exited: exited, said: p.Log}
}

// Number runs a query that gives one number.
func (p *Postgres) Number(ctx context.Context, dsn, query string) (n int64, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return n, conn.QueryRow(ctx, query).Scan(&n)
}
