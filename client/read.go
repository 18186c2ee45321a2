package client

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sluice.dev/sluice"
)

// ReadOptions say what to read.
type ReadOptions struct {
	Groups  []string      // nil: all that are not events
	Receipt string        // show at least this write
	Wait    time.Duration // for Receipt; 0: as long as Sluice lets one wait
}

// Read gives the row of a key: a value, or for a key of several columns a map
// or a slice. Row.Found tells whether it is there.
func (c *Client) Read(ctx context.Context, table string, key any, o ReadOptions) (sluice.Row, error) {
	rows, err := c.ReadMany(ctx, table, []any{key}, o)
	if err != nil {
		return sluice.Row{}, err
	}
	return rows[0], nil
}

// ReadMany gives one row a key, in their order.
func (c *Client) ReadMany(ctx context.Context, table string, keys []any, o ReadOptions) ([]sluice.Row, error) {
	ask := struct {
		Table   string   `json:"table"`
		Keys    []any    `json:"keys"`
		Groups  []string `json:"groups,omitempty"`
		Receipt string   `json:"receipt,omitempty"`
		Wait    string   `json:"wait,omitempty"`
	}{Table: table, Keys: keys, Groups: o.Groups, Receipt: o.Receipt}
	if o.Wait > 0 {
		ask.Wait = o.Wait.String()
	}
	body, err := json.Marshal(&ask)
	if err != nil {
		return nil, sluice.Errorf(sluice.Invalid, "bad_key", "a key cannot be said in JSON: %w", err)
	}
	var a struct {
		Rows []sluice.Row `json:"rows"`
	}
	err = c.do(ctx, &call{method: http.MethodPost, path: "/v1/reads", contentType: "application/json", body: body, wait: o.Wait, answer: c.into(&a)})
	if err == nil && len(a.Rows) != len(keys) {
		err = sluice.Errorf(sluice.Internal, "bad_answer", "asked for %d rows, got %d", len(keys), len(a.Rows))
	}
	return a.Rows, err
}

// Receipt says what became of a write. With wait above 0 it waits so long for a
// final state.
func (c *Client) Receipt(ctx context.Context, receipt string, wait time.Duration) (sluice.ReceiptStatus, error) {
	path := "/v1/receipts/" + url.PathEscape(receipt)
	if wait > 0 {
		path += "?wait=" + wait.String()
	}
	var a sluice.ReceiptStatus
	err := c.get(ctx, path, wait, &a)
	return a, err
}

// Route says where a key lives. The key is its text, as in `sluice get`.
func (c *Client) Route(ctx context.Context, table, key string) (sluice.RouteInfo, error) {
	var a sluice.RouteInfo
	err := c.get(ctx, "/v1/route/"+url.PathEscape(table)+"/"+url.PathEscape(key), 0, &a)
	return a, err
}

// Status is the state of the process.
func (c *Client) Status(ctx context.Context) (sluice.Status, error) {
	var a sluice.Status
	err := c.get(ctx, "/v1/status", 0, &a)
	return a, err
}

// Ready is nil when Sluice takes requests. It is asked once, without retries.
func (c *Client) Ready(ctx context.Context) error {
	return c.try(ctx, &call{method: http.MethodGet, path: "/readyz", answer: func(*http.Response) error { return nil }})
}

// Ledger gives the sums of everything that was offered.
func (c *Client) Ledger(ctx context.Context) ([]sluice.LedgerRow, error) {
	var a struct {
		Ledger []sluice.LedgerRow `json:"ledger"`
	}
	err := c.get(ctx, "/v1/ledger", 0, &a)
	return a.Ledger, err
}

// Hot lists the keys that take a notable share of their group's writes, hottest
// first in each group.
func (c *Client) Hot(ctx context.Context) ([]sluice.HotKey, error) {
	var a struct {
		Hot []sluice.HotKey `json:"hot"`
	}
	err := c.get(ctx, "/v1/hot", 0, &a)
	return a.Hot, err
}

// RejectsQuery selects rejects; zero fields do not.
type RejectsQuery struct {
	Table, Group, State string
	Max                 int // 0: as many as Sluice gives by itself
}

// Rejects lists what databases refused.
func (c *Client) Rejects(ctx context.Context, q RejectsQuery) ([]sluice.Reject, error) {
	values := url.Values{}
	for name, v := range map[string]string{"table": q.Table, "group": q.Group, "state": q.State} {
		if v != "" {
			values.Set(name, v)
		}
	}
	if q.Max > 0 {
		values.Set("max", strconv.Itoa(q.Max))
	}
	var a struct {
		Rejects []sluice.Reject `json:"rejects"`
	}
	err := c.get(ctx, "/v1/rejects?"+values.Encode(), 0, &a)
	return a.Rejects, err
}

// DecideReject does "replay" or "discard" with a reject. It is not tried again
// when the answer is lost: look at the reject's state.
func (c *Client) DecideReject(ctx context.Context, id, decision string) error {
	return c.do(ctx, &call{method: http.MethodPost, path: "/v1/rejects/" + url.PathEscape(id) + "/" + url.PathEscape(decision), once: true, answer: nothing})
}

// Reload makes Sluice read its config again; the error lists every fault of it.
func (c *Client) Reload(ctx context.Context) error {
	return c.do(ctx, &call{method: http.MethodPost, path: "/v1/reload", answer: nothing})
}

// Resume makes stopped streams of a store try again at once; shard "" means all
// of its shards. acceptGap lets those go on whose history is missing: receipts
// of what is missing say lost.
func (c *Client) Resume(ctx context.Context, store, shard string, acceptGap bool) error {
	query := url.Values{}
	if shard != "" {
		query.Set("shard", shard)
	}
	if acceptGap {
		query.Set("accept_gap", "true")
	}
	return c.do(ctx, &call{method: http.MethodPost, path: "/v1/stores/" + url.PathEscape(store) + "/resume?" + query.Encode(), answer: nothing})
}

func nothing(*http.Response) error { return nil }

// Drain returns when every store has what was acknowledged before the call.
// progress, when not nil, hears how much is still queued. ctx bounds it.
func (c *Client) Drain(ctx context.Context, progress func(queued uint64)) error {
	return c.do(ctx, &call{method: http.MethodPost, path: "/v1/drain", endless: true, answer: func(h *http.Response) error {
		return readDrain(h, progress)
	}})
}

// readDrain reads progress lines until the last.
func readDrain(h *http.Response, progress func(uint64)) error {
	lines := json.NewDecoder(bufio.NewReader(h.Body))
	for {
		var l struct {
			Queued *uint64      `json:"queued"`
			Done   bool         `json:"done"`
			Error  *problemJSON `json:"error"`
		}
		if err := lines.Decode(&l); err != nil {
			return err
		}
		switch {
		case l.Error != nil:
			return l.Error.error(0)
		case l.Done:
			return nil
		case l.Queued != nil && progress != nil:
			progress(*l.Queued)
		}
	}
}
