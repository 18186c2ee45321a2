package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Limits of waiting for a process.
const (
	readyTimeMax = time.Minute
	stopTimeMax  = 20 * time.Second
)

// process is a program that a row is made of. It ends with this one, also when
// this one is killed.
type process struct {
	cmd    *exec.Cmd
	said   bytes.Buffer // to standard error; read it after the end
	exited chan struct{}
}

// startProcess starts a program and, when hello is not nil, reads the line of
// JSON into it with which the program says that it is ready.
func startProcess(cmd *exec.Cmd, hello any) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = &p.said
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	var lines *bufio.Reader
	if hello != nil {
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		lines = bufio.NewReader(out)
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var err error
	if hello != nil {
		err = json.NewDecoder(lines).Decode(hello)
	}
	go func() {
		_ = cmd.Wait()
		close(p.exited)
	}()
	if err != nil {
		p.end(syscall.SIGKILL)
		return nil, fmt.Errorf("start %s: %w: %s", p.name(), err, p.tail())
	}
	return p, nil
}

func (p *process) name() string { return filepath.Base(p.cmd.Path) }

func (p *process) tail() string {
	text := p.said.Bytes()
	return string(text[max(0, len(text)-2000):])
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
			return fmt.Errorf("%s ended while it started: %s", p.name(), p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name(), err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// tree lists the processes and all their descendants.
func tree(processes []*process) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		if f := statFields(name); len(f) > 1 {
			parent, _ := strconv.Atoi(f[1])
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			children[parent] = append(children[parent], pid)
		}
	}
	var pids []int
	for _, p := range processes {
		pids = append(pids, p.cmd.Process.Pid)
	}
	for i := 0; i < len(pids); i++ {
		for _, c := range children[pids[i]] {
			if !slices.Contains(pids, c) {
				pids = append(pids, c)
			}
		}
	}
	return pids
}

// statFields gives the fields of /proc/PID/stat from the third on: the name
// before them may hold spaces.
func statFields(file string) []string {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// usage is what the processes of a row have taken so far.
type usage struct {
	cpu    time.Duration
	memory int64 // resident at most
}

// usageOf sums over the trees. Pages that a process shares with its children,
// of the program and of PostgreSQL's buffers, show in each of them; they are
// counted once for each tree. Processes that have ended count in their parent.
func usageOf(processes []*process) (u usage) {
	for _, p := range processes {
		var program, buffers int64
		for _, pid := range tree([]*process{p}) {
			dir := fmt.Sprintf("/proc/%d/", pid)
			if f := statFields(dir + "stat"); len(f) > 14 {
				const tick = time.Second / 100 // USER_HZ, the same on every Linux that Go runs on
				for _, ticks := range f[11:15] {
					n, _ := strconv.ParseInt(ticks, 10, 64)
					u.cpu += time.Duration(n) * tick
				}
			}
			status := fieldsOf(dir + "status")
			u.memory += (status["VmHWM"] - status["RssFile"] - status["RssShmem"]) << 10
			program, buffers = max(program, status["RssFile"]<<10), max(buffers, status["RssShmem"]<<10)
		}
		u.memory += program + buffers
	}
	return u
}

// fieldsOf reads "name: number" lines of a file of /proc.
func fieldsOf(file string) map[string]int64 {
	text, _ := os.ReadFile(file)
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if f := strings.Fields(value); len(f) > 0 {
			out[strings.TrimSpace(name)], _ = strconv.ParseInt(f[0], 10, 64)
		}
	}
	return out
}

// killAll is kill -9 of everything that a row is made of, as near to one moment as it can be.
func killAll(processes []*process) {
	for _, pid := range tree(processes) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, p := range processes {
		<-p.exited
	}
}
