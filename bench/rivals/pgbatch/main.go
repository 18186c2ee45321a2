// Command pgbatch is the best that we could write by hand in front of
// PostgreSQL in a page of Go: writers wait while a batch is under way, what
// arrives meanwhile is folded into the next, and each is acknowledged when its
// transaction has committed. README.md gives the reasons.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/bench/rivals/batch"
	"sluice.dev/sluice/bench/rivals/door"
)

func main() {
	url := flag.String("postgres", "", "URL of the database")
	workers := flag.Int("workers", 2, "connections; each owns the keys of its remainder")
	rows := flag.Int("rows", 5000, "most writes of a batch")
	flag.Parse()
	// It serves until it is ended, so whatever comes back is an error.
	fmt.Fprintln(os.Stderr, "pgbatch:", run(*url, *workers, *rows))
	os.Exit(1)
}

func run(url string, workers, rows int) error {
	queues := make([]chan *door.Pending, workers)
	for i := range queues {
		conn, err := pgx.Connect(context.Background(), url)
		if err != nil {
			return err
		}
		queues[i] = make(chan *door.Pending, rows)
		go work(conn, queues[i], rows)
	}
	// All writes of a key go to one worker, so no row lock is ever waited for.
	return door.Serve(func(p *door.Pending) { queues[p.Key%uint64(workers)] <- p })
}

// work runs until the process ends. An error of the database is answered to the
// writers of its batch, who may send again.
func work(conn *pgx.Conn, queue chan *door.Pending, rows int) {
	var waiting []*door.Pending
	for {
		fold := batch.NewFold()
		p := <-queue
		for {
			fold.Add(p.Write)
			waiting = append(waiting, p)
			if len(waiting) == rows || len(queue) == 0 {
				break
			}
			p = <-queue
		}
		err := fold.Apply(context.Background(), conn)
		for _, p := range waiting {
			p.Done <- err
		}
		waiting = waiting[:0]
	}
}
