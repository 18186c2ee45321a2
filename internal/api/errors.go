package api

import (
	"errors"
	"time"

	"sluice.dev/sluice"
)

// outcome says how the doors speak an error.
type outcome struct {
	Code   sluice.Code
	Reason string // "": every reason of the code that has no row of its own
	HTTP   int
	RESP   string
	Retry  bool // the same request may succeed later; it counts once for sure only with an identity
}

// outcomes is the one table of what an error means at a door. Rows with a
// reason stand before the row of their code. RESP prefixes that client
// libraries retry by themselves (TRYAGAIN, LOADING) are given only where
// nothing was accepted, since such a retry carries no identity.
var outcomes = []outcome{
	{sluice.Invalid, "bad_request", 400, "ERR", false},
	{sluice.Invalid, "bad_identity", 400, "ERR", false},
	{sluice.Invalid, "bad_receipt", 400, "ERR", false},
	{sluice.Invalid, "content_encoding", 415, "ERR", false},
	{sluice.Invalid, "", 422, "ERR", false},
	{sluice.Denied, "unauthenticated", 401, "NOAUTH", false},
	{sluice.Denied, "", 403, "NOPERM", false},
	{sluice.NotFound, "no_method", 405, "ERR", false},
	{sluice.NotFound, "", 404, "ERR", false},
	{sluice.Conflict, "identity_reused", 422, "ERR", false},
	{sluice.Conflict, "", 409, "ERR", false},
	{sluice.TooLarge, "", 413, "ERR", false},
	{sluice.Overloaded, "rate_limit", 429, "TRYAGAIN", true},
	{sluice.Overloaded, "", 503, "TRYAGAIN", true},
	{sluice.Unavailable, "starting", 503, "LOADING", true},
	{sluice.Unavailable, "read_timeout", 408, "ERR", true},
	{sluice.Unavailable, "", 503, "UNAVAILABLE", true},
	{sluice.Rejected, "", 422, "REJECTED", false},
	{sluice.Internal, "", 500, "ERR", false},
}

// retryAfterDefault is what a refusal that does not say when to come back gets.
const retryAfterDefault = time.Second

// outcomeOf finds the row of an error.
func outcomeOf(code sluice.Code, reason string) outcome {
	for _, o := range outcomes {
		if o.Code == code && (o.Reason == "" || o.Reason == reason) {
			return o
		}
	}
	return outcomes[len(outcomes)-1]
}

// asError gives the Error in err's chain. What has none is ours: its text may
// name files and databases, so that clients get a sentence without it.
func asError(err error) *sluice.Error {
	var e *sluice.Error
	if errors.As(err, &e) {
		return e
	}
	return &sluice.Error{Code: sluice.Internal, Reason: "internal", Err: err,
		Detail: "Sluice failed at this request; its log says why"}
}

// retryAfter says when to come back; 0 when a retry cannot help.
func retryAfter(e *sluice.Error) time.Duration {
	if !outcomeOf(e.Code, e.Reason).Retry {
		return 0
	}
	if e.RetryAfter > 0 {
		return e.RetryAfter
	}
	return retryAfterDefault
}

// reasonCode says which code a refusal of one line has. Sampled and thinned
// writes were dropped as their owner asked: no error, and no retry.
func reasonCode(r sluice.Reason) sluice.Code {
	switch r {
	case sluice.BadLine:
		return sluice.Invalid
	case sluice.NotAllowed:
		return sluice.Denied
	case sluice.ShuttingDown, sluice.StreamStopped, sluice.DiskReserve:
		return sluice.Unavailable
	case sluice.Accepted, sluice.Sampled, sluice.Thinned:
		return ""
	}
	return sluice.Overloaded
}
