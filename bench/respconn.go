package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// respConn is the least that a client of the RESP door can be, so that the
// client takes little of the cores that the server is measured on.
type respConn struct {
	c   net.Conn
	in  *bufio.Reader
	out []byte
}

const answerTimeMax = time.Minute

func dialRESP(addr string) (*respConn, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &respConn{c: c, in: bufio.NewReaderSize(c, 64<<10)}, nil
}

func (r *respConn) close() { r.c.Close() }

func (r *respConn) put(args ...string) {
	r.out = append(strconv.AppendInt(append(r.out, '*'), int64(len(args)), 10), '\r', '\n')
	for _, a := range args {
		r.out = append(strconv.AppendInt(append(r.out, '$'), int64(len(a)), 10), '\r', '\n')
		r.out = append(append(r.out, a...), '\r', '\n')
	}
}

// putIncrement queues HINCRBY posts:KEY likes 1.
func (r *respConn) putIncrement(key uint64) {
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], key, 10)
	r.out = append(r.out, "*4\r\n$7\r\nHINCRBY\r\n$"...)
	r.out = strconv.AppendInt(r.out, int64(len("posts:")+len(text)), 10)
	r.out = append(r.out, "\r\nposts:"...)
	r.out = append(r.out, text...)
	r.out = append(r.out, "\r\n$5\r\nlikes\r\n$1\r\n1\r\n"...)
}

// flush sends what is queued and reads n answers of one line each.
func (r *respConn) flush(n int) error {
	_ = r.c.SetDeadline(time.Now().Add(answerTimeMax))
	_, err := r.c.Write(r.out)
	r.out = r.out[:0]
	if err != nil {
		return err
	}
	for range n {
		line, err := r.in.ReadSlice('\n')
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if line[0] == '-' {
			return fmt.Errorf("the server answered %q", line)
		}
	}
	return nil
}

func (r *respConn) ask(args ...string) error {
	r.put(args...)
	return r.flush(1)
}
