// Package door lets a rival that is a library or a pipeline be reached over
// loopback as the servers are: it reads the three commands of the comparison as
// RESP, hands each to a worker, and answers in order. An answer goes out when
// the worker says that the write is durable. It never batches, folds or keeps
// anything: that is the rival's own affair.
package door

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"sluice.dev/sluice/bench/rivals/batch"
)

// pendingMax bounds what one connection may have under way.
const pendingMax = 4096

// Pending is a write that waits for its answer: send exactly one on Done.
type Pending struct {
	batch.Write
	Done chan error
}

// Serve says where it listens, as a line of JSON on standard output, and serves
// until the process ends. submit may wait: that is how a worker pushes back.
func Serve(submit func(*Pending)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"addr": l.Addr().String()}); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(c, submit)
	}
}

func serve(c net.Conn, submit func(*Pending)) {
	defer c.Close()
	queue := make(chan *Pending, pendingMax)
	defer close(queue)
	go answer(c, queue)
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		args, err := command(in)
		if err != nil {
			return
		}
		p := &Pending{Done: make(chan error, 1)}
		if p.Write, err = parse(args); err != nil {
			p.Done <- err
		} else {
			submit(p)
		}
		queue <- p
	}
}

// answer ends when the connection's queue is closed; it goes on reading the
// queue when nobody listens any more, so that serve never hangs.
func answer(c net.Conn, queue chan *Pending) {
	out := bufio.NewWriterSize(c, 64<<10)
	for p := range queue {
		if len(p.Done) == 0 {
			_ = out.Flush()
		}
		if err := <-p.Done; err != nil {
			_, _ = fmt.Fprintf(out, "-ERR %s\r\n", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			_, _ = out.WriteString(":1\r\n")
		}
		if len(queue) == 0 {
			_ = out.Flush()
		}
	}
}

// command reads one array of bulk strings.
func command(in *bufio.Reader) ([]string, error) {
	n, err := header(in, '*')
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := header(in, '$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(in, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

func header(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 4 || line[0] != kind {
		return 0, fmt.Errorf("want %q, got %q", kind, line)
	}
	n, err := strconv.Atoi(string(line[1 : len(line)-2]))
	if err != nil || n < 0 || n > 1<<20 {
		return 0, fmt.Errorf("bad length %q", line)
	}
	return n, nil
}

func parse(args []string) (w batch.Write, err error) {
	if len(args) < 4 {
		return w, fmt.Errorf("unknown command %q", args)
	}
	table, key, _ := strings.Cut(args[1], ":")
	if w.Key, err = strconv.ParseUint(key, 10, 63); err != nil {
		return w, err
	}
	switch {
	case table == "posts" && args[0] == "HINCRBY":
		w.Kind = batch.Like
	case table == "drivers" && args[0] == "HSET":
		// The text is made of the number again when it is applied.
		w.Kind = batch.Place
		w.N, err = strconv.ParseUint(strings.TrimPrefix(args[3][:min(8, len(args[3]))], "52."), 10, 63)
	case table == "log.clicks" && args[0] == "XADD" && len(args) == 7:
		w.Kind = batch.Event
		w.N, err = strconv.ParseUint(args[6], 10, 63)
	default:
		err = fmt.Errorf("unknown command %q", args)
	}
	return w, err
}
