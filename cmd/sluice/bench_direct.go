package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// directSQL holds the statements that an application would write.
type directSQL struct{ like, event string }

func directStatements(schema string) directSQL {
	return directSQL{"UPDATE " + schema + ".posts_direct SET likes = likes + 1 WHERE id = $1",
		"INSERT INTO " + schema + ".events_direct (post, n, what) VALUES ($1, $2, $3)"}
}

type directWrite struct {
	event bool
	key   int64
	n     int64
}

func (s directSQL) write(ctx context.Context, conn *pgx.Conn, w directWrite) error {
	var err error
	if w.event {
		_, err = conn.Exec(ctx, s.event, w.key, w.n, benchText)
	} else {
		_, err = conn.Exec(ctx, s.like, w.key)
	}
	return err
}

// The direct client as a process of its own, so that it can be killed as an
// application is: it gets a write a line ("number kind key n") and answers with
// the number once the database has said that it is committed.

const directReady = "ready"

func (p *program) runBenchChild(ctx context.Context) error {
	u, err := url.Parse(p.env(benchDSNVariable))
	if err != nil {
		return usage("--direct-child is for the bench itself")
	}
	clients, err := strconv.Atoi(p.env(benchClientsVariable))
	if err != nil {
		return usage("--direct-child is for the bench itself")
	}
	db := &benchDB{url: u, schema: u.Query().Get("schema")}
	lines := make(chan string)
	work, ctx := errgroup.WithContext(ctx)
	var out sync.Mutex
	say := func(text string) {
		out.Lock()
		defer out.Unlock()
		fmt.Fprintln(p.Stdout, text)
	}
	conns := make([]*pgx.Conn, clients)
	for i := range conns {
		if conns[i], err = db.writer(ctx); err != nil {
			return err
		}
	}
	for _, conn := range conns {
		work.Go(func() error { return directClient(ctx, conn, directStatements(db.schema), lines, say) })
	}
	say(directReady)
	// Not awaited: nothing ends a read of standard input but its other side.
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(p.Stdin); in.Scan(); {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	return work.Wait()
}

func directClient(ctx context.Context, conn *pgx.Conn, statements directSQL, lines <-chan string, say func(string)) error {
	defer conn.Close(context.WithoutCancel(ctx))
	for {
		var line string
		var more bool
		select {
		case line, more = <-lines:
		case <-ctx.Done():
		}
		if !more {
			return ctx.Err()
		}
		var number int64
		var w directWrite
		if _, err := fmt.Sscanf(line, "%d %t %d %d", &number, &w.event, &w.key, &w.n); err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		if err := statements.write(ctx, conn, w); err != nil {
			return err
		}
		say(strconv.FormatInt(number, 10))
	}
}

const benchClientsVariable = "SLUICE_BENCH_CLIENTS"

// directApp is the parent's side of the direct client's process. A write whose
// answer did not come is given to the next process again: the retry that people
// write, and that nothing tells from a new write.
type directApp struct {
	env []string

	mu      sync.Mutex
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	killed  bool          // on purpose
	failed  error         // it ended by itself
	exited  chan struct{} // closed when the process is gone
	up      chan struct{} // closed while a process takes writes
	next    int64
	waiting map[int64]chan bool // by number: true is an answer, false that the process is gone
	words   *lastBytes
}

func newDirectApp(dsn string, clients int) *directApp {
	return &directApp{env: []string{benchDSNVariable + "=" + dsn, benchClientsVariable + "=" + strconv.Itoa(clients)},
		up: make(chan struct{}), waiting: map[int64]chan bool{}}
}

// start starts the process and waits until it has its connections.
func (a *directApp) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "bench", "--direct-child")
	cmd.Env = append(os.Environ(), a.env...)
	words := &lastBytes{}
	cmd.Stderr = words
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the direct client: %w", err)
	}
	exited, ready := make(chan struct{}), make(chan struct{})
	a.mu.Lock()
	a.cmd, a.stdin, a.exited, a.words, a.killed = cmd, stdin, exited, words, false
	a.mu.Unlock()
	go a.listen(cmd, stdout, ready)
	ctx, cancel := context.WithTimeout(ctx, demoStartMax)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-exited:
		return fmt.Errorf("the direct client ended before it was ready: %s", words)
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("the direct client was not ready: %w", ctx.Err()), a.kill())
	}
}

// listen hands out the answers until the process is gone, and then tells those
// who still wait.
func (a *directApp) listen(cmd *exec.Cmd, stdout io.Reader, ready chan<- struct{}) {
	in := bufio.NewScanner(stdout)
	for in.Scan() {
		a.mu.Lock()
		if in.Text() == directReady {
			close(ready)
			close(a.up)
		} else if n, err := strconv.ParseInt(in.Text(), 10, 64); err == nil {
			if answer := a.waiting[n]; answer != nil {
				answer <- true
				delete(a.waiting, n)
			}
		}
		a.mu.Unlock()
	}
	_ = cmd.Wait() // how it ended is seen in what it said
	a.mu.Lock()
	defer a.mu.Unlock()
	for n, answer := range a.waiting {
		answer <- false
		delete(a.waiting, n)
	}
	select {
	case <-a.up:
		a.up = make(chan struct{})
	default:
	}
	if !a.killed {
		a.failed = fmt.Errorf("the direct client ended by itself: %s", a.words)
	}
	close(a.exited)
}

// write gives a write to the process, and to the next one when that died
// before it answered.
func (a *directApp) write(ctx context.Context, w directWrite) error {
	for {
		answer, up, err := a.hand(w)
		if err != nil {
			return err
		}
		select {
		case <-up:
			continue
		case done := <-answer:
			if done {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hand writes the line, or gives what to wait for while there is no process.
func (a *directApp) hand(w directWrite) (<-chan bool, <-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return nil, nil, a.failed
	}
	select {
	case <-a.up:
	default:
		return nil, a.up, nil
	}
	a.next++
	answer := make(chan bool, 1)
	a.waiting[a.next] = answer
	// An error means that the process is gone, which listen tells all.
	_, _ = fmt.Fprintf(a.stdin, "%d %t %d %d\n", a.next, w.event, w.key, w.n)
	return answer, nil, nil
}

// kill is kill -9.
func (a *directApp) kill() error {
	a.mu.Lock()
	cmd, exited, words := a.cmd, a.exited, a.words
	a.killed = a.failed == nil
	a.mu.Unlock()
	err := cmd.Process.Kill()
	<-exited
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("the direct client was gone before it was killed: %s", words)
	}
	return err
}

// stop ends the process, whose writes were all answered.
func (a *directApp) stop() {
	a.mu.Lock()
	stdin, exited := a.stdin, a.exited
	a.killed = true
	a.mu.Unlock()
	if stdin == nil {
		return
	}
	_ = stdin.Close() // gone already is as good
	<-exited
}

// lastBytes keeps the end of what was written to it.
type lastBytes struct {
	mu   sync.Mutex
	text []byte
}

const lastBytesMax = 2000

func (l *lastBytes) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	l.text = l.text[max(0, len(l.text)-lastBytesMax):]
	return len(p), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.text))
}
