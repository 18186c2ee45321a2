package sluice

import (
	"errors"
	"fmt"
	"time"
)

// Code says who can act on an error. It decides the HTTP status, the RESP
// prefix and whether a client tries again, in one table (api).
type Code string

// The codes.
const (
	Invalid     Code = "invalid"     // the caller must change the request; a retry fails the same way
	Denied      Code = "denied"      // not authenticated, or not allowed
	NotFound    Code = "not_found"   // no such table, key, receipt
	Conflict    Code = "conflict"    // the same identity with other bytes, a reload during a move
	TooLarge    Code = "too_large"   // over a named limit of size
	Overloaded  Code = "overloaded"  // refused on purpose; try again after RetryAfter
	Unavailable Code = "unavailable" // something is down or closing; try again
	Rejected    Code = "rejected"    // the database itself refused the row
	Internal    Code = "internal"    // our fault
)

// Error is an error with a code. Reason is a stable word for programs
// (journal_full, disk_reserve, bad_value ...), Detail a sentence for people
// that says what was wrong, where, and the cure.
type Error struct {
	Code       Code
	Reason     string
	Detail     string
	RetryAfter time.Duration // 0: not said
	Err        error         // the cause, or nil
}

func (e *Error) Error() string { return e.Detail }
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error whose cause is what a %w in the format wraps.
func Errorf(code Code, reason, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Reason: reason, Detail: err.Error(), Err: errors.Unwrap(err)}
}

// CodeOf is the code of the first Error in err's chain; Internal when there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}
