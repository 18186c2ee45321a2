// Package client talks to Sluice's HTTP door: it writes (one at a time or in
// batches that number themselves), reads, waits for receipts, and does what
// operators do. It retries with the identity of the original, so that what
// counts, counts once. It never decides what a write means, and it keeps no
// write that was not accepted: who calls keeps it until the answer is there.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice.dev/sluice"
)

// Options say how to reach Sluice. Only URL is needed.
type Options struct {
	URL   string      // like http://127.0.0.1:7070
	Token string      // of a client in the config; "" without, or with a certificate
	TLS   *tls.Config // roots and client certificate; nil: the system's roots
	// HTTP replaces the client's own connections; TLS is then not looked at.
	HTTP *http.Client
	// RetryBudget bounds how long one call goes on trying; 0 means
	// DefaultRetryBudget, below 0 no call is tried twice.
	RetryBudget time.Duration
	// AttemptTimeout bounds each try, beside what the call itself asks Sluice to
	// wait; 0 means DefaultAttemptTimeout.
	AttemptTimeout time.Duration
	// AnswerBytesMax bounds an answer that is held in memory; 0 means DefaultAnswerBytesMax.
	AnswerBytesMax int64
}

// Defaults and limits.
const (
	DefaultRetryBudget    = 30 * time.Second
	DefaultAttemptTimeout = 30 * time.Second
	DefaultAnswerBytesMax = 64 << 20
	BackoffMin            = 20 * time.Millisecond // before jitter; doubles with each try
	BackoffMax            = 2 * time.Second
	ConnsIdleMax          = 256 // connections kept open for the next call
)

// Client is safe for concurrent use. It starts no goroutine; a Batcher does.
type Client struct {
	o    Options
	base string
	http *http.Client
}

// New makes a client. It does not connect.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("URL %q is not one of an HTTP door; write it like http://127.0.0.1:7070", o.URL)
	}
	if o.RetryBudget == 0 {
		o.RetryBudget = DefaultRetryBudget
	}
	if o.AttemptTimeout <= 0 {
		o.AttemptTimeout = DefaultAttemptTimeout
	}
	if o.AnswerBytesMax <= 0 {
		o.AnswerBytesMax = DefaultAnswerBytesMax
	}
	c := &Client{o: o, base: strings.TrimRight(o.URL, "/"), http: o.HTTP}
	if c.http == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = o.TLS
		transport.MaxIdleConns, transport.MaxIdleConnsPerHost = ConnsIdleMax, ConnsIdleMax
		c.http = &http.Client{Transport: transport}
	}
	return c, nil
}

// Close closes connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call is one request, and how often it may be sent.
type call struct {
	method, path string
	contentType  string
	body         []byte
	identity     string // name of the header ...
	identityText string // ... and what it says
	once         bool   // a second try could do it twice
	wait         time.Duration
	endless      bool                         // no AttemptTimeout
	answer       func(h *http.Response) error // reads a 2xx answer; a plain error means that it was cut short
}

// brokenError is a try of which nobody knows what it did.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// do sends a call until it is answered, refused for good, or the budget or ctx
// is used up. Then the error is that of the last try.
func (c *Client) do(ctx context.Context, r *call) error {
	deadline := time.Now().Add(c.o.RetryBudget)
	for try := 0; ; try++ {
		err := c.try(ctx, r)
		wait, again := c.again(r, err, try)
		if !again || ctx.Err() != nil {
			return err
		}
		if time.Now().Add(wait).After(deadline) {
			return fmt.Errorf("%s %s: gave up after %d tries: %w", r.method, r.path, try+1, err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s %s: %w; the last try: %w", r.method, r.path, ctx.Err(), err)
		}
	}
}

// again says whether and when to try again. What Sluice asked for is a lower
// bound; jitter spreads clients that were all refused at once.
func (c *Client) again(r *call, err error, try int) (time.Duration, bool) {
	if err == nil || c.o.RetryBudget < 0 {
		return 0, false
	}
	ceiling := min(BackoffMax, BackoffMin<<min(try, 10))
	jitter := ceiling/2 + rand.N(ceiling/2+1)
	var broken *brokenError
	if errors.As(err, &broken) {
		return jitter, !r.once
	}
	var e *sluice.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	switch e.Code {
	case sluice.Overloaded, sluice.Unavailable:
		// A refusal says that nothing was done, but for reason "unknown".
		return e.RetryAfter + jitter, !r.once || e.RetryAfter > 0 && e.Reason != "unknown"
	case sluice.Internal:
		return jitter, !r.once
	}
	return 0, false
}

func (c *Client) try(ctx context.Context, r *call) error {
	if !r.endless {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.o.AttemptTimeout+r.wait)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, bytes.NewReader(r.body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if c.o.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.o.Token)
	}
	if r.identity != "" {
		req.Header.Set(r.identity, r.identityText)
	}
	h, err := c.http.Do(req)
	if err != nil {
		return &brokenError{err}
	}
	defer h.Body.Close()
	if h.StatusCode/100 != 2 {
		return c.problem(h, r)
	}
	if err := r.answer(h); err != nil {
		var e *sluice.Error
		if errors.As(err, &e) {
			return err
		}
		return &brokenError{fmt.Errorf("read answer: %w", err)}
	}
	return nil
}

// problem makes an error of an answer that is none of success.
func (c *Client) problem(h *http.Response, r *call) error {
	text, err := c.readAll(h)
	if err != nil {
		return &brokenError{err}
	}
	kind, _, _ := mime.ParseMediaType(h.Header.Get("Content-Type"))
	if kind == "application/json" && h.StatusCode == http.StatusUnprocessableEntity && r.answer != nil {
		// Accepted, and then refused by the database: an answer with a receipt.
		h.Body = io.NopCloser(bytes.NewReader(text))
		return r.answer(h)
	}
	var p problemJSON
	if kind != "application/problem+json" || json.Unmarshal(text, &p) != nil || p.Code == "" {
		return &sluice.Error{Code: codeOfStatus(h.StatusCode), Reason: "http", RetryAfter: retryAfter(h),
			Detail: fmt.Sprintf("%s %s: HTTP %s, not an answer of Sluice: %.200q", r.method, r.path, h.Status, text)}
	}
	return p.error(retryAfter(h))
}

// problemJSON is Sluice's problem+json.
type problemJSON struct {
	Code         sluice.Code `json:"code"`
	Reason       string      `json:"reason"`
	Detail       string      `json:"detail"`
	RetryAfterMs int64       `json:"retry_after_ms"`
	Faults       []Refusal   `json:"faults"`
	Outcomes     []Refusal   `json:"outcomes"`
}

func (p *problemJSON) error(wait time.Duration) error {
	if p.RetryAfterMs > 0 {
		wait = time.Duration(p.RetryAfterMs) * time.Millisecond
	}
	e := &sluice.Error{Code: p.Code, Reason: p.Reason, Detail: p.Detail, RetryAfter: wait}
	if list := append(p.Faults, p.Outcomes...); len(list) > 0 {
		return &WriteError{Cause: e, Refusals: list}
	}
	return e
}

// codeOfStatus is for answers of proxies in between.
func codeOfStatus(status int) sluice.Code {
	switch {
	case status == http.StatusTooManyRequests:
		return sluice.Overloaded
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return sluice.Denied
	case status == http.StatusNotFound:
		return sluice.NotFound
	case status == http.StatusRequestEntityTooLarge:
		return sluice.TooLarge
	case status >= 500, status == http.StatusRequestTimeout:
		return sluice.Unavailable
	}
	return sluice.Invalid
}

func retryAfter(h *http.Response) time.Duration {
	d, err := time.ParseDuration(h.Header.Get("Retry-After") + "s")
	if err != nil || d < 0 {
		return 0
	}
	return d
}

// readAll reads an answer of bounded size.
func (c *Client) readAll(h *http.Response) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(h.Body, c.o.AnswerBytesMax+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > c.o.AnswerBytesMax {
		return nil, sluice.Errorf(sluice.TooLarge, "answer_bytes", "the answer is longer than %d bytes, AnswerBytesMax; ask for less, or raise it", c.o.AnswerBytesMax)
	}
	return text, nil
}

// into gives a reader of a JSON answer.
func (c *Client) into(v any) func(*http.Response) error {
	return func(h *http.Response) error {
		text, err := c.readAll(h)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, v)
	}
}

// get asks for something that may be asked twice.
func (c *Client) get(ctx context.Context, path string, wait time.Duration, v any) error {
	return c.do(ctx, &call{method: http.MethodGet, path: path, wait: wait, answer: c.into(v)})
}
