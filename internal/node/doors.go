package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"sluice.dev/sluice/internal/api"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/schema"
)

// doors are the listeners of one process.
type doors struct {
	http   *api.HTTP
	resp   *api.RESP
	httpLn net.Listener
	respLn net.Listener
	stop   context.CancelFunc
	open_  sync.WaitGroup
}

// open listens, so that a port in use is an error of Open, and answers nothing yet.
func (d *doors) open(n *Node, s *schema.Schema) error {
	tlsConfig, err := api.TLSConfig(s.Listen)
	if err != nil {
		return err
	}
	auth := api.NewAuth(n.acceptor.Schema)
	if closed := s.Listen.HTTP == "" || s.Listen.HTTP == "off"; !closed {
		if d.http, err = api.NewHTTP(api.Options{Writes: n.acceptor, Reads: n.reader, Admin: n, Auth: auth, Metrics: n.metrics(), Ready: http.HandlerFunc(n.serveReady),
			TLS: tlsConfig, ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug), Failed: func(err error) { n.emit(observe.EventDoor, "door", "http", "error", err) }}); err != nil {
			return err
		}
		if d.httpLn, err = listenOn("listen.http", s.Listen.HTTP); err != nil {
			return err
		}
	}
	if closed := s.Listen.RESP == "" || s.Listen.RESP == "off"; !closed {
		if d.resp, err = api.NewRESP(api.RESPOptions{Writes: n.acceptor, Reads: n.reader, Admin: n, Auth: auth, TLS: tlsConfig, Version: Version}); err != nil {
			return err
		}
		if d.respLn, err = listenOn("listen.resp", s.Listen.RESP); err != nil {
			return err
		}
	}
	return nil
}

func listenOn(setting, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; another process has the port, or the address is not this machine's", setting, err)
	}
	return l, nil
}

// serve answers until shutdown.
func (d *doors) serve(n *Node) {
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	serve := func(name string, fn func() error) {
		d.open_.Add(1)
		go func() {
			defer d.open_.Done()
			if err := fn(); err != nil && ctx.Err() == nil {
				n.fail(fmt.Errorf("%s door: %w", name, err))
			}
		}()
	}
	if d.httpLn != nil {
		serve("HTTP", func() error { return d.http.Serve(ctx, d.httpLn) })
	}
	if d.respLn != nil {
		serve("RESP", func() error { return d.resp.Serve(context.Background(), d.respLn) })
	}
}

// shutdown closes the doors; requests under way finish until ctx ends.
func (d *doors) shutdown(ctx context.Context) {
	if d.stop == nil {
		d.close()
		return
	}
	d.stop()
	if d.resp != nil {
		_ = d.resp.Shutdown(ctx) // what it says is that connections were cut, which clients see
	}
	d.open_.Wait()
}

// close gives the ports back when nothing was served.
func (d *doors) close() error {
	var errs []error
	for _, l := range []net.Listener{d.httpLn, d.respLn} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

func (d *doors) httpAddr() string { return addrOf(d.httpLn) }
func (d *doors) respAddr() string { return addrOf(d.respLn) }

func addrOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func (n *Node) serveReady(w http.ResponseWriter, _ *http.Request) {
	if !n.ready.Load() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "not ready: recovering or stopping", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintf(w, "ready for %s\n", time.Since(n.started).Round(time.Second))
}
