package measure

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PeakMiB is the most memory the process itself ever had resident.
func (p *Process) PeakMiB() float64 { return float64(statusOf(p.proc.Pid)["VmHWM"]) / 1024 }

// CPU is the processor time that the process itself has used.
func (p *Process) CPU() time.Duration { own, _ := cpuOf(p.proc.Pid); return own }

// Usage is what processes have taken so far, with all their descendants.
type Usage struct {
	CPU    time.Duration
	Memory int64 // bytes resident at most
}

// UsageOf sums over the trees. Pages that a process shares with its children,
// of the program and of PostgreSQL's buffers, show in each of them; they are
// counted once for each tree. Processes that have ended count in their parent.
func UsageOf(processes []*Process) (u Usage) {
	for _, p := range processes {
		var program, buffers int64
		for _, pid := range tree([]*Process{p}) {
			own, ended := cpuOf(pid)
			u.CPU += own + ended
			status := statusOf(pid)
			u.Memory += (status["VmHWM"] - status["RssFile"] - status["RssShmem"]) << 10
			program, buffers = max(program, status["RssFile"]<<10), max(buffers, status["RssShmem"]<<10)
		}
		u.Memory += program + buffers
	}
	return u
}

// tree lists the processes and all their descendants.
func tree(processes []*Process) []int {
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
		pids = append(pids, p.proc.Pid)
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

// cpuOf is the processor time of a process, and that of its children that have ended.
func cpuOf(pid int) (own, ended time.Duration) {
	f := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(f) < 15 {
		return 0, 0
	}
	const tick = time.Second / 100 // USER_HZ, the same on every Linux that Go runs on
	of := func(field string) time.Duration {
		n, _ := strconv.ParseInt(field, 10, 64)
		return time.Duration(n) * tick
	}
	return of(f[11]) + of(f[12]), of(f[13]) + of(f[14])
}

// statusOf reads the "name: number" lines of /proc/PID/status.
func statusOf(pid int) map[string]int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	out := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if f := strings.Fields(value); len(f) > 0 {
			out[strings.TrimSpace(name)], _ = strconv.ParseInt(f[0], 10, 64)
		}
	}
	return out
}
