package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	_ "modernc.org/sqlite"

	"sluice.dev/sluice/client"
)

// Limits of waiting for a process.
const (
	readyTimeMax = 2 * time.Minute
	stopTimeMax  = 30 * time.Second
	drainTimeMax = 5 * time.Minute

	memoryMaxMiB = 512
)

// process is a server that this program started. It ends with it, also when
// this program is killed.
type process struct {
	cmd    *exec.Cmd
	out    bytes.Buffer // what it said to standard error
	exited chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = &p.out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// end sends a signal and waits; what does not end in time is killed.
func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.exited:
	case <-time.After(stopTimeMax):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// said is the end of what the process wrote to standard error, after it ended.
func (p *process) said() string {
	<-p.exited
	text := p.out.Bytes()
	return string(text[max(0, len(text)-2000):])
}

// poll asks again and again until ok says so, the process ends, or it takes too long.
func (p *process) poll(ctx context.Context, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeMax)
	defer cancel()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended while it started: %s", filepath.Base(p.cmd.Path), p.said())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", filepath.Base(p.cmd.Path), err)
		case <-time.After(time.Millisecond):
		}
	}
}

// peakMiB is the most memory the process ever had resident.
func (p *process) peakMiB() float64 {
	var kib float64
	fmt.Sscan(fieldOf(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), "VmHWM"), &kib)
	return kib / 1024
}

// cpu is the processor time that the process has used.
func (p *process) cpu() time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	const ticks = 100 // USER_HZ, the same on every Linux that Go runs on
	return time.Duration(user+system) * time.Second / ticks
}

// server is the real binary.
type server struct {
	*process
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
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := startProcess(cmd)
	if err != nil {
		return nil, err
	}
	sv := &server{process: p, dir: dir}
	if err := sv.greet(ctx, out); err != nil {
		_ = p.cmd.Process.Kill()
		return nil, fmt.Errorf("start sluice: %w\n%s", err, p.said())
	}
	return sv, nil
}

func (sv *server) greet(ctx context.Context, out io.Reader) error {
	var doors struct{ HTTP, RESP string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&doors); err != nil {
		return fmt.Errorf("read where the doors are: %w", err)
	}
	sv.http, sv.resp = strings.TrimPrefix(doors.HTTP, "http://"), doors.RESP
	var err error
	if sv.client, err = client.New(client.Options{URL: doors.HTTP, RetryBudget: -1}); err != nil {
		return err
	}
	return sv.poll(ctx, sv.client.Ready)
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
	peak := sv.peakMiB()
	sv.client.Close()
	sv.end(syscall.SIGTERM)
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

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
