package api

import (
	_ "embed"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// rejectsMax is the most rejects that one answer lists.
const rejectsMax = 10_000

// getStatus answers the state of the process. Who may use some tables only sees
// only their streams.
func (q *request) getStatus() error {
	if q.who.MayRead("") != nil {
		if err := q.who.MayAdmin(); err != nil {
			return err
		}
	}
	status := q.h.o.Admin.Status()
	if !q.who.AllTables() {
		status.Streams = slices.DeleteFunc(slices.Clone(status.Streams), func(s sluice.StreamStatus) bool {
			return q.who.may(true, "see", s.Table) != nil
		})
	}
	return q.sendJSON(http.StatusOK, &status)
}

// getLedger answers the sums of R2.
func (q *request) getLedger() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	rows := q.h.o.Admin.Ledger()
	if rows == nil {
		rows = []sluice.LedgerRow{}
	}
	return q.sendJSON(http.StatusOK, map[string]any{"ledger": rows})
}

// getRejects lists what databases refused (S10).
func (q *request) getRejects() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	query := q.r.URL.Query()
	ask := RejectsQuery{Table: query.Get("table"), Group: query.Get("group"), State: query.Get("state"), Max: 100}
	if s := query.Get("max"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > rejectsMax {
			return sluice.Errorf(sluice.Invalid, "bad_request", "max=%.20q: ask for 1 to %d rejects", s, rejectsMax)
		}
		ask.Max = n
	}
	switch ask.State {
	case "", "open", "replayed", "discarded":
	default:
		return sluice.Errorf(sluice.Invalid, "bad_request", "state=%.20q: a reject is open, replayed or discarded", ask.State)
	}
	rejects, err := q.h.o.Admin.Rejects(q.r.Context(), ask)
	if err != nil {
		return err
	}
	if rejects == nil {
		rejects = []sluice.Reject{}
	}
	return q.sendJSON(http.StatusOK, map[string]any{"rejects": rejects})
}

// postReject decides about a reject.
func (q *request) postReject() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	id, decision := q.r.PathValue("id"), q.r.PathValue("decision")
	if decision != "replay" && decision != "discard" {
		return sluice.Errorf(sluice.NotFound, "no_route", "%.40q cannot be done to a reject; replay or discard it", decision)
	}
	if err := q.h.o.Admin.DecideReject(q.r.Context(), id, decision); err != nil {
		return err
	}
	return q.sendJSON(http.StatusOK, map[string]string{"id": id, "decision": decision})
}

// postReload reads the config again.
func (q *request) postReload() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	err := q.h.o.Admin.Reload(q.r.Context())
	var faults schema.Faults
	if errors.As(err, &faults) {
		return &sluice.Error{Code: sluice.Invalid, Reason: "bad_config", Detail: faults.Error(), Err: err}
	}
	if err != nil {
		return err
	}
	return q.sendJSON(http.StatusOK, map[string]bool{"reloaded": true})
}

// postDrain flushes everything, and says in a line each time it hears of it how
// much is still queued. The last line is {"done":true}; without it the drain
// did not finish, and an error line says why when there is one.
func (q *request) postDrain() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	ctx, cancel := q.waiting()
	defer cancel()
	s := &stream{q: q, bodyRead: true} // there is none
	rc := http.NewResponseController(q.w)
	err := q.h.o.Admin.Drain(ctx, func(queued uint64) {
		q.out = strconv.AppendUint(append(q.out, `{"queued":`...), queued, 10)
		q.out = append(q.out, '}', '\n')
		s.flush(rc)
	})
	if err != nil {
		return s.fail(err, rc)
	}
	q.out = append(q.out, "{\"done\":true}\n"...)
	s.flush(rc)
	return nil
}

func (q *request) getMetrics() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	if q.h.o.Metrics == nil {
		return sluice.Errorf(sluice.NotFound, "no_route", "this process has no metrics")
	}
	q.h.o.Metrics.ServeHTTP(q.w, q.r)
	return nil
}

func (q *request) getHealthy() error {
	if q.h.o.Healthy != nil {
		q.h.o.Healthy.ServeHTTP(q.w, q.r)
		return nil
	}
	return q.sendJSON(http.StatusOK, map[string]string{"status": "ok"})
}

// getReady answers 503 before recovery is over and once the door closes, so
// that a load balancer sends nothing here.
func (q *request) getReady() error {
	if q.h.closing.Err() != nil {
		return errClosing
	}
	if q.h.o.Ready != nil {
		q.h.o.Ready.ServeHTTP(q.w, q.r)
		return nil
	}
	if !q.h.o.Admin.Status().Ready {
		return sluice.Errorf(sluice.Unavailable, "starting", "Sluice is starting and not ready yet; ask again in a moment")
	}
	return q.sendJSON(http.StatusOK, map[string]string{"status": "ready"})
}

//go:embed openapi.json
var openAPI []byte

func (q *request) getOpenAPI() error {
	q.out = append(q.out[:0], openAPI...)
	q.send(http.StatusOK, jsonType)
	return nil
}

// postResume makes stopped streams of a store go on (S4).
func (q *request) postResume() error {
	if err := q.who.MayAdmin(); err != nil {
		return err
	}
	query, store := q.r.URL.Query(), q.r.PathValue("store")
	gap := query.Get("accept_gap")
	if gap != "" && gap != "true" && gap != "false" {
		return sluice.Errorf(sluice.Invalid, "bad_request", "accept_gap=%.20q: true or false", gap)
	}
	if err := q.h.o.Admin.Resume(q.r.Context(), store, query.Get("shard"), gap == "true"); err != nil {
		return err
	}
	return q.sendJSON(http.StatusOK, map[string]any{"store": store, "resumed": true})
}
