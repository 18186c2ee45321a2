package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/schema"
)

// Limits of the HTTP door that nobody needs to configure.
const (
	headerBytesMax  = 64 << 10
	h2StreamsMax    = 100 // requests at once on one HTTP/2 connection
	writeTimeout    = 30 * time.Second
	shutdownTimeout = 10 * time.Second // for requests in flight when the door closes
	bodyKeepMax     = 64 << 10         // larger buffers count against `memory` and are not kept
	progressBytes   = 4 << 10          // a streamed body must bring a line or this much each `read_timeout`
	streamAhead     = 2                // chunks of a stream that are parsed while an earlier one waits
)

// Options make an HTTP door.
type Options struct {
	Writes Writes
	Reads  Reads
	Admin  Admin
	Auth   *Auth

	Metrics http.Handler // for clients with admin rights; nil: none
	Healthy http.Handler // for everybody; nil: 200
	Ready   http.Handler // for everybody; nil: by Admin.Status

	TLS      *tls.Config      // nil: plain
	Now      func() time.Time // nil: time.Now
	ErrorLog *log.Logger      // of net/http; nil: its default
	// Failed hears of errors that clients are told nothing about, and of answers
	// that say "internal". nil: they are dropped.
	Failed func(error)
}

// HTTP is the HTTP door. Its goroutines are those of net/http, and one for each
// NDJSON body that reads and parses while the handler submits.
type HTTP struct {
	o       Options
	mux     *http.ServeMux
	routes  []route
	origins *http.CrossOriginProtection
	memory  atomic.Int64 // bytes held by large bodies, bounded by `memory`
	jobs    sync.Pool

	conns       atomic.Pointer[limitListener] // nil before Serve
	requestTime *observe.Histogram

	closing context.Context // ends when the door closes: waits and streams end early
	close   context.CancelFunc
}

type route struct {
	pattern string // "METHOD /path"
	open    bool   // without authentication
	handle  func(*request) error
}

// request is one request under way.
type request struct {
	h      *HTTP
	w      http.ResponseWriter
	r      *http.Request
	who    *Principal
	schema *schema.Schema
	out    []byte // the answer
	text   []byte // the decoded body
	taken  int64  // of HTTP.memory
}

var requests = sync.Pool{New: func() any { return new(request) }}

// NewHTTP makes a door. Serve opens it.
func NewHTTP(o Options) (*HTTP, error) {
	if o.Writes == nil || o.Reads == nil || o.Admin == nil || o.Auth == nil {
		return nil, errors.New("an HTTP door needs Writes, Reads, Admin and Auth")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Failed == nil {
		o.Failed = func(error) {}
	}
	h := &HTTP{o: o, mux: http.NewServeMux(), requestTime: observe.NewHistogram(observe.Seconds), origins: http.NewCrossOriginProtection()}
	h.closing, h.close = context.WithCancel(context.Background())
	h.jobs.New = func() any { return newJob(h) }
	h.routes = h.allRoutes()
	for _, rt := range h.routes {
		h.mux.HandleFunc(rt.pattern, func(w http.ResponseWriter, r *http.Request) { h.serve(rt, w, r) })
	}
	elsewhere := route{open: true, handle: (*request).noRoute}
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { h.serve(elsewhere, w, r) })
	return h, nil
}

// allRoutes is what openapi.json describes; a test compares the two.
func (h *HTTP) allRoutes() []route {
	return []route{
		{"POST /v1/writes", false, (*request).postWrites},
		{"POST /v1/tables/{table}/{key...}", false, (*request).postTable},
		{"GET /v1/tables/{table}/{key...}", false, (*request).getTable},
		{"POST /v1/reads", false, (*request).postReads},
		{"GET /v1/receipts/{receipt}", false, (*request).getReceipt},
		{"GET /v1/route/{table}/{key...}", false, (*request).getRoute},
		{"POST /v1/producers", false, (*request).postProducers},
		{"GET /v1/status", false, (*request).getStatus},
		{"GET /v1/ledger", false, (*request).getLedger},
		{"GET /v1/hot", false, (*request).getHot},
		{"GET /v1/rejects", false, (*request).getRejects},
		{"POST /v1/rejects/{id}/{decision}", false, (*request).postReject},
		{"POST /v1/reload", false, (*request).postReload},
		{"POST /v1/drain", false, (*request).postDrain},
		{"POST /v1/stores/{store}/resume", false, (*request).postResume},
		{"GET /metrics", false, (*request).getMetrics},
		{"GET /healthz", true, (*request).getHealthy},
		{"GET /readyz", true, (*request).getReady},
		{"GET /openapi.json", true, (*request).getOpenAPI},
	}
}

// Serve answers requests until ctx ends or the listener fails. At the end it
// refuses new connections, lets requests in flight finish for shutdownTimeout,
// and cuts off the rest. A door is served once.
func (h *HTTP) Serve(ctx context.Context, l net.Listener) error {
	limits := &h.o.Writes.Schema().Limits
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: limits.ReadTimeout,
		ReadTimeout:       limits.ReadTimeout, // streams push it on as they bring lines
		WriteTimeout:      limits.ReadTimeout + limits.WaitMax + writeTimeout,
		IdleTimeout:       limits.IdleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          h.o.ErrorLog,
		TLSConfig:         h.o.TLS,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: h2StreamsMax},
	}
	var unused sync.Map // connections that have not sent a byte yet
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			unused.Store(c, nil)
		} else {
			unused.Delete(c)
		}
	}
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		h.close()
		// Shutdown gives an unused connection five seconds; clients that dial
		// ahead would make every stop that long.
		unused.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := srv.Shutdown(late)
		if err != nil {
			err = errors.Join(fmt.Errorf("close the HTTP door: requests were still in flight: %w", err), srv.Close())
		}
		closed <- err
	})
	var err error
	if h.o.TLS == nil {
		err = srv.Serve(h.limit(l, httpConnsRefusal))
	} else {
		err = srv.ServeTLS(h.limit(l, nil), "", "")
	}
	if stop() {
		h.close()
		return errors.Join(fmt.Errorf("serve HTTP: %w", err), srv.Close())
	}
	return <-closed
}

func (h *HTTP) limit(l net.Listener, refusal []byte) net.Listener {
	limited := &limitListener{Listener: l, limit: int64(h.o.Writes.Schema().Limits.ConnsMax), refusal: refusal}
	h.conns.Store(limited)
	return limited
}

// Samples are the door's metrics.
func (h *HTTP) Samples() observe.Samples {
	return func(yield func(observe.Sample) bool) {
		if l := h.conns.Load(); l != nil && !(yield(observe.Connections.Of(float64(l.open.Load()), "http")) &&
			yield(observe.ConnectionsRefused.Of(float64(l.refused.Load()), "http"))) {
			return
		}
		yield(observe.RequestTime.With(h.requestTime, "http"))
	}
}

// ServeHTTP lets the door stand inside another server, without the limits
// that Serve puts on connections.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func (h *HTTP) serve(rt route, w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	defer func() { h.requestTime.Observe(time.Since(began).Seconds()) }()
	q := requests.Get().(*request)
	*q = request{h: h, w: w, r: r, schema: h.o.Writes.Schema(), out: q.out[:0], text: q.text[:0]}
	err := q.identify(rt.open)
	if err == nil {
		err = rt.handle(q)
	}
	if err != nil {
		q.problem(err)
	}
	q.forgetLarge()
	q.w, q.r, q.who, q.schema = nil, nil, nil, nil
	requests.Put(q)
}

// identify finds out who is asking. A token needs no look at the origin, since
// no browser sends one by itself; a certificate and a place on this machine do.
func (q *request) identify(open bool) (err error) {
	if open {
		return nil
	}
	auth := q.h.o.Auth
	if auth.Open() {
		if err := checkHost(q.r.Host); err != nil {
			return err
		}
		q.who, err = auth.Anonymous(q.r.RemoteAddr)
	} else if token, ok := bearer(q.r); ok {
		q.who, err = auth.Token(token)
		return err
	} else {
		q.who, err = auth.Certificate(q.r.TLS)
	}
	if err != nil {
		return err
	}
	if err := q.h.origins.Check(q.r); err != nil {
		return sluice.Errorf(sluice.Denied, "cross_origin", "a browser sent this from another site; call Sluice from your own server, or with a token")
	}
	return nil
}

func bearer(r *http.Request) (string, bool) {
	const scheme = "bearer "
	v := r.Header.Get("Authorization")
	if len(v) <= len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
		return "", false
	}
	return v[len(scheme):], true
}

// checkHost keeps web pages out that point a name of their own at this machine
// (DNS rebinding). It matters only where nobody needs a token.
func checkHost(host string) error {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	return sluice.Errorf(sluice.Denied, "host", "without `clients` in the config Sluice answers to localhost and addresses, not to the name %.80q", name)
}

// noRoute answers what no route matches, and says which methods a path has.
func (q *request) noRoute() error {
	var methods []string
	for _, m := range []string{"GET", "POST"} {
		other := q.r.Clone(q.r.Context())
		other.Method = m
		if _, pattern := q.h.mux.Handler(other); pattern != "/" {
			methods = append(methods, m)
		}
	}
	if len(methods) == 0 {
		return sluice.Errorf(sluice.NotFound, "no_route", "nothing is at %.200q; GET /openapi.json lists what there is", q.r.URL.Path)
	}
	q.w.Header().Set("Allow", strings.Join(methods, ", "))
	return sluice.Errorf(sluice.NotFound, "no_method", "%.200q takes %s, not %.20q", q.r.URL.Path, strings.Join(methods, " and "), q.r.Method)
}

// waiting gives a context that ends with the request, and when the door closes.
func (q *request) waiting() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(q.r.Context())
	stop := context.AfterFunc(q.h.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// duration reads a query parameter like wait=5s; absent is 0.
func (q *request) duration(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, sluice.Errorf(sluice.Invalid, "bad_request", "%.40q is no time to wait; write one like 500ms or 5s", text)
	}
	if top := q.schema.Limits.WaitMax; d > top {
		return 0, sluice.Errorf(sluice.Invalid, "bad_request", "wait of %s is longer than %s, the limit `wait_max`; ask again when it is over", d, top)
	}
	return d, nil
}
