package postgres

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"sluice.dev/sluice/internal/store"
)

// errMissingRow: missing_row is reject and the row of a change is not there.
var errMissingRow = errors.New("the row is not there, and the table says missing_row: reject")

// class says what is to be done about an error (S10).
type class int

const (
	transient class = iota // back off, take again, try again
	refused                // the database refuses a row: find it
	locked                 // somebody else holds a row's lock: find it and park it
	fenced
	shrink
	stop // trying again cannot help
)

// classify reads the SQLSTATE as S10 says. Errors without one come from the
// connection and are transient.
func classify(err error) class {
	if errors.Is(err, errMissingRow) {
		return refused
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return transient
	}
	switch pg.Code {
	case store.SQLStateGuard:
		return fenced
	case "57014": // statement_timeout
		return shrink
	case "55P03":
		return locked
	case "P0001":
		return refused
	case "42501":
		// A policy refuses a row; a missing privilege refuses all. The message is
		// translated, the routine's name is not.
		if pg.Routine == "ExecWithCheckOptions" {
			return refused
		}
		return stop
	case "25006", "26000", "42P05":
		return transient
	}
	switch pg.Code[:2] {
	case "22", "23", "44", "54":
		return refused
	case "40", "08", "53", "57", "58":
		return transient
	}
	return stop
}

// stepOf is the step of a transaction that failed.
func stepOf(err error) string {
	var f *failure
	if errors.As(err, &f) {
		return f.step
	}
	return ""
}

// isRowFault tells whether an error may be the fault of single rows, so that
// looking for them is worth while.
func isRowFault(err error) bool {
	switch classify(err) {
	case refused:
		return true
	case locked:
		step := stepOf(err)
		return step == "rows" || step == "commit"
	}
	return false
}

// outcome turns an error into what the contract says about it. doing is verb
// and object.
func (s *Shard) outcome(doing string, err error) error {
	var pg *pgconn.PgError
	var stopped *store.StopError
	switch {
	case err == nil || errors.As(err, &stopped) || errors.Is(err, store.ErrUnknown):
		return err
	case errors.As(err, &pg):
		s.learn(pg)
	}
	switch classify(err) {
	case fenced:
		return fmt.Errorf("%s: %s: %w", s.where(), doing, store.ErrFenced)
	case shrink:
		return fmt.Errorf("%s: %s: %w: %w", s.where(), doing, store.ErrShrink, err)
	case stop:
		return s.stopped(doing, pg)
	}
	return s.wrap(doing, err)
}

// learn draws from an error what the next transaction does otherwise.
func (s *Shard) learn(pg *pgconn.PgError) {
	switch pg.Code {
	case "26000", "42P05": // a pooler hands our connection's statements to others
		s.named.Store(false)
	case "25006": // this server has become a standby: connect anew, the URL may name several
		s.pool.Reset()
	}
}

func (s *Shard) stopped(doing string, pg *pgconn.PgError) error {
	reason, cure := "database_error", "mend the database and go on with `sluice resume --shard "+s.opt.Shard.Name+"`"
	switch pg.Code {
	case "42501":
		reason, cure = "no_privilege", "grant it to the role of the shard's URL and go on with `sluice resume --shard "+s.opt.Shard.Name+"`"
	case "42P01", "42703":
		reason, cure = "missing_table", "`sluice migrate --print` shows what is missing, `sluice migrate --apply` makes it; then go on with `sluice resume --shard "+s.opt.Shard.Name+"`"
	}
	return &store.StopError{Reason: reason, Detail: fmt.Sprintf("%s: %s: %s (SQLSTATE %s); %s", s.where(), doing, pg.Message, pg.Code, cure)}
}
