package api

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"sluice.dev/sluice"
)

// TestRESPScripts runs every script three times: commands whole, cut at random
// bytes, and byte by byte. The answers must be the same.
func TestRESPScripts(t *testing.T) {
	cuts := map[string]func(int) int{
		"whole":  func(n int) int { return n },
		"random": func(n int) int { return 1 + rand.IntN(min(n, 40)) },
		"bytes":  func(int) int { return 1 },
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			datadriven.Walk(t, "testdata/resp", func(t *testing.T, path string) {
				s := newRESPScript(t, cut, strings.Contains(filepath.Base(path), "auth"))
				datadriven.RunTest(t, path, s.run)
			})
		})
	}
}

type respScript struct {
	t       *testing.T
	backend *respBackend
	addr    string
	cut     func(int) int
	conns   map[string]*respTestConn
}

type respTestConn struct {
	net.Conn
	r *bufio.Reader
}

func newRESPScript(t *testing.T, cut func(int) int, clients bool) *respScript {
	config := respTestConfig
	if clients {
		config += respTestClients
	}
	b := newRESPBackend(respTestSchema(t, config))
	_, addr := serveRESP(t, b, nil)
	return &respScript{t: t, backend: b, addr: addr, cut: cut, conns: map[string]*respTestConn{}}
}

func dialRESP(t testing.TB, addr string) *respTestConn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(20 * time.Second)) // a hang fails the test and does not hold it up
	return &respTestConn{nc, bufio.NewReader(nc)}
}

func (s *respScript) conn(name string) *respTestConn {
	if s.conns[name] == nil {
		s.conns[name] = dialRESP(s.t, s.addr)
	}
	return s.conns[name]
}

// run knows: `send` a pipeline, one command a line; `raw` bytes as Go strings;
// `refuse`, `fail`, `state` the backend; `accepted` what reached it; `waited` what
// WAIT asked for.
func (s *respScript) run(t *testing.T, d *datadriven.TestData) string {
	name := "main"
	d.MaybeScanArgs(t, "conn", &name)
	switch d.Cmd {
	case "send":
		var wire []byte
		lines := strings.Split(d.Input, "\n")
		for _, l := range lines {
			wire = appendRESPCommand(wire, l)
		}
		return s.exchange(name, wire, len(lines))
	case "raw":
		var wire []byte
		for l := range strings.SplitSeq(d.Input, "\n") {
			text, err := strconv.Unquote(l)
			if err != nil {
				t.Fatalf("%s: %v", l, err)
			}
			wire = append(wire, text...)
		}
		answers := 1
		d.MaybeScanArgs(t, "answers", &answers)
		return s.exchange(name, wire, answers)
	case "accepted":
		return strings.Join(s.backend.takeEntries(), "\n")
	default:
		return s.tellBackend(t, d)
	}
}

func (s *respScript) tellBackend(t *testing.T, d *datadriven.TestData) (out string) {
	s.backend.set(func(b *respBackend) {
		switch d.Cmd {
		case "refuse":
			for _, a := range d.CmdArgs {
				n, _ := strconv.Atoi(a.Vals[0])
				b.refuse[a.Key] = sluice.Reason(n)
			}
		case "fail":
			b.fail = nil
			if len(d.CmdArgs) > 0 {
				b.fail = &sluice.Error{Code: sluice.Code(d.CmdArgs[0].Key), Reason: d.CmdArgs[1].Key, Detail: d.Input, RetryAfter: 250 * time.Millisecond}
			}
		case "state":
			b.state = d.CmdArgs[0].Key
		case "waited":
			for i, r := range b.receipts {
				out += fmt.Sprintf("journal %d commit %d for %v:", r.Journal, r.Commit, b.waits[i])
				for _, g := range r.Groups {
					out += fmt.Sprintf(" %s %d", b.schema.Group(g.Group).FullName(), g.Partitions.Len())
				}
				out += "\n"
			}
			b.receipts, b.waits = nil, nil
		default:
			t.Fatalf("no directive %s", d.Cmd)
		}
	})
	return out
}

func (s *respScript) exchange(conn string, wire []byte, answers int) string {
	c := s.conn(conn)
	sent := make(chan struct{})
	go func() { // beside the reading: neither side's socket buffer may fill up
		defer close(sent)
		for len(wire) > 0 {
			n := min(s.cut(len(wire)), len(wire))
			if _, err := c.Write(wire[:n]); err != nil {
				return
			}
			wire = wire[n:]
		}
	}()
	var out strings.Builder
	for range answers {
		if !readRESPAnswer(&out, c.r, "") {
			delete(s.conns, conn)
			break
		}
	}
	<-sent
	return out.String()
}

// appendRESPCommand says a line as an array of its words; quotes are Redis'.
func appendRESPCommand(wire []byte, line string) []byte {
	r := respReader{argsMax: 1 << 20, bulkMax: 1 << 30}
	words, err := r.words([]byte(line))
	if err != nil {
		panic(err)
	}
	wire = fmt.Appendf(wire, "*%d\r\n", len(words))
	for _, w := range words {
		wire = fmt.Appendf(wire, "$%d\r\n%s\r\n", len(w), w)
	}
	return wire
}

// readRESPAnswer writes one answer as people read it; false at the connection's end.
func readRESPAnswer(out *strings.Builder, r *bufio.Reader, indent string) bool {
	line, err := r.ReadString('\n')
	if err != nil {
		out.WriteString(indent + "(closed)\n")
		return false
	}
	line = strings.TrimSuffix(line, "\r\n")
	n, _ := strconv.Atoi(line[1:])
	switch {
	case line == "$-1" || line == "_":
		out.WriteString(indent + "(nil " + line + ")\n")
	case line[0] == '$':
		b := make([]byte, n+2)
		if _, err := io.ReadFull(r, b); err != nil {
			out.WriteString(indent + "(closed)\n")
			return false
		}
		text := string(b[:n])
		if strings.Contains(text, "\r\n") { // INFO
			out.WriteString(indent + strings.ReplaceAll(strings.ReplaceAll(text, "\r\n\r\n", "\n"), "\r\n", "\n"+indent) + "\n")
		} else {
			out.WriteString(indent + strconv.Quote(text) + "\n")
		}
	case line[0] == '*' || line[0] == '%':
		out.WriteString(indent + line + "\n")
		if line[0] == '%' {
			n *= 2
		}
		for range n {
			if !readRESPAnswer(out, r, indent+"  ") {
				return false
			}
		}
	default:
		out.WriteString(indent + line + "\n")
	}
	return true
}
