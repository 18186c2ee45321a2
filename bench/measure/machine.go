package measure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"sluice.dev/sluice/internal/console"
	"sluice.dev/sluice/internal/store/pgtest"
)

// Machine says where and with what the figures came about.
type Machine struct {
	Date     string `json:"date"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Memory   int64  `json:"memory_bytes"`
	Kernel   string `json:"kernel"`
	Disk     string `json:"file_system"`
	Go       string `json:"go"`
	Redis    string `json:"redis,omitempty"`
	Postgres string `json:"postgresql,omitempty"`
	Sync     string `json:"fdatasync"` // of one 4 KiB block, alone: percentiles 50 and 99
}

// ThisMachine describes the machine, with the disk that dir is on. What cannot
// be found out stays empty.
func ThisMachine(ctx context.Context, dir string) Machine {
	m := Machine{Date: time.Now().UTC().Format(time.RFC3339), Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.CPU = fieldOf("/proc/cpuinfo", "model name")
	fmt.Sscan(fieldOf("/proc/meminfo", "MemTotal"), &m.Memory)
	m.Memory *= 1024
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(text))
	}
	m.Disk = outputOf(ctx, "stat", "-f", "-c", "%T", dir)
	m.Redis = regexp.MustCompile(`v=([\d.]+)`).FindString(outputOf(ctx, "redis-server", "--version"))
	if bin, err := pgtest.Binaries(); err == nil {
		m.Postgres = outputOf(ctx, bin+"/postgres", "--version")
	}
	if l, err := syncLatency(dir); err == nil {
		m.Sync = fmt.Sprintf("p50 %s, p99 %s", console.Span(l.At(0.5)), console.Span(l.At(0.99)))
	}
	return m
}

// fieldOf reads "name : value" from a file of /proc.
func fieldOf(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func outputOf(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Text is the machine in two lines, for the head of a table.
func (m *Machine) Text() string {
	return fmt.Sprintf("%s  %d cores %s, %s memory, Linux %s, %s, fdatasync %s\n%s, redis %s, %s",
		m.Date, m.Cores, m.CPU, console.Bytes(m.Memory), m.Kernel, m.Disk, m.Sync, m.Go, m.Redis, m.Postgres)
}

// FileName begins the name of a file of results: the day and the machine.
func (m *Machine) FileName() string {
	words := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(m.CPU), "-")
	return fmt.Sprintf("%s-%d-cores-%s", m.Date[:len(time.DateOnly)], m.Cores, strings.Trim(words, "-"))
}

// syncLatency measures what one durable block costs: the floor under every figure.
func syncLatency(dir string) (*Latencies, error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return nil, err
	}
	defer func() {
		f.Close()
		os.Remove(f.Name())
	}()
	// The blocks are there before: fdatasync of a file that grows costs more.
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	var l Latencies
	block := make([]byte, 4096)
	for i := range int64(200) {
		from := time.Now()
		if _, err := f.WriteAt(block, i*4096%(1<<20)); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		l.Add(time.Since(from))
	}
	return &l, nil
}
