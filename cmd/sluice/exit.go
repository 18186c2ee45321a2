package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"sluice.dev/sluice"
)

// The exit codes. They are part of the interface: scripts look at them.
const (
	exitDone        = 0
	exitFailed      = 1   // something broke, or the answer is no
	exitUsage       = 2   // the command line is wrong
	exitLater       = 3   // down, closing or overloaded: the same command may work later
	exitPartly      = 4   // done, but some writes were refused or rejected
	exitInterrupted = 130 // stopped by a signal before it was done
)

const exitHelp = `Exit codes:
  0  done
  1  failed, or the answer is no (faults found, totals differ, receipt lost)
  2  the command line is wrong
  3  the server is down, closing or overloaded: try again later
  4  done, but some writes were refused or rejected
  130  interrupted`

// usageError is a wrong command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// answer is an exit code for a command that has said all there is to say.
type answer int

func (a answer) Error() string { return fmt.Sprintf("exit code %d", int(a)) }

// exit prints what is left to be said of err and gives the exit code.
func (p *program) exit(ctx context.Context, err error) int {
	var said answer
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &said):
		return int(said)
	}
	code := exitCode(ctx, err)
	if p.json {
		p.printErrorJSON(err, code)
		return code
	}
	text := err.Error()
	if code == exitInterrupted && errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	fmt.Fprintf(p.Stderr, "%s %s\n", p.err.Red("sluice:"), text)
	if code == exitUsage {
		fmt.Fprintf(p.Stderr, "see: %s --help\n", p.command)
	}
	return code
}

func exitCode(ctx context.Context, err error) int {
	var wrong *usageError
	if errors.As(err, &wrong) {
		return exitUsage
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	switch sluice.CodeOf(err) {
	case sluice.Overloaded, sluice.Unavailable:
		return exitLater
	case sluice.Rejected:
		return exitPartly
	default:
		return exitFailed
	}
}

func (p *program) printErrorJSON(err error, code int) {
	type body struct {
		Code   string `json:"code"`
		Reason string `json:"reason,omitempty"`
		Detail string `json:"detail"`
		Exit   int    `json:"exit"`
	}
	b := body{Code: "failed", Detail: err.Error(), Exit: code}
	var e *sluice.Error
	switch {
	case errors.As(err, &e):
		b.Code, b.Reason = string(e.Code), e.Reason
	case code == exitUsage:
		b.Code = "usage"
	case code == exitInterrupted:
		b.Code = "interrupted"
	}
	text, _ := json.Marshal(map[string]body{"error": b})
	fmt.Fprintf(p.Stderr, "%s\n", text)
}
