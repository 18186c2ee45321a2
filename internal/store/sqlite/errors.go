package sqlite

import (
	"errors"
	"fmt"
	"strings"

	sqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"sluice.dev/sluice/internal/store"
)

// refusalOf gives what the database has against a row, as an SQLSTATE (S10);
// nil when the error is not about the row. SQLite has codes of its own.
func refusalOf(err error) *store.Refusal {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	state := ""
	switch e.Code() {
	case lib.SQLITE_CONSTRAINT_CHECK:
		state = "23514"
	case lib.SQLITE_CONSTRAINT_FOREIGNKEY:
		state = "23503"
	case lib.SQLITE_CONSTRAINT_NOTNULL:
		state = "23502"
	case lib.SQLITE_CONSTRAINT_PRIMARYKEY, lib.SQLITE_CONSTRAINT_UNIQUE, lib.SQLITE_CONSTRAINT_ROWID:
		state = "23505"
	case lib.SQLITE_CONSTRAINT_TRIGGER:
		state = "P0001" // RAISE in a trigger
	case lib.SQLITE_CONSTRAINT_DATATYPE:
		state = "22018"
		if strings.Contains(e.Error(), "REAL value in INT") {
			state = "22003" // an int64 sum that overflowed has become a float
		}
	case lib.SQLITE_MISMATCH:
		state = "22018"
	case lib.SQLITE_TOOBIG:
		state = "54000"
	default:
		switch {
		case e.Code()&0xff == lib.SQLITE_CONSTRAINT:
			state = "23000"
		case e.Code() == lib.SQLITE_ERROR && strings.Contains(e.Error(), "integer overflow"):
			state = "22003"
		default:
			return nil
		}
	}
	return &store.Refusal{SQLState: state, Reason: e.Error()}
}

// failure turns an error of the database into what the drainer acts on. An I/O
// error is remembered: after a failed fsync nobody knows what is on disk, so this
// handle answers nothing else any more (J4).
func (s *Shard) failure(err error) error {
	var e *sqlite.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	stop := func(reason, cure string) error {
		return &store.StopError{Reason: reason, Detail: fmt.Sprintf("%s: %v; %s", s.where(), err, cure)}
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_IOERR:
		fatal := stop(store.ReasonIOError, "the disk or its file system failed; look at it, then start again: the journal replays what is missing")
		s.broken.CompareAndSwap(nil, &fatal)
		return fatal
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return stop("corrupt", "the file is damaged or no SQLite database; restore it from a copy, then `sluice resume --store "+s.o.Store.Name+"`: the journal replays what is missing")
	case lib.SQLITE_FULL:
		return fmt.Errorf("%s: the disk is full; free some space, draining goes on by itself: %w", s.where(), err)
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		return fmt.Errorf("%s: another process holds the database's write lock: %w", s.where(), err)
	case lib.SQLITE_ERROR:
		return stop("schema", "the tables are not what the config says; `sluice migrate --print` shows what is missing, then `sluice resume --store "+s.o.Store.Name+"`")
	}
	return fmt.Errorf("%s: %w", s.where(), err)
}

// where names the database in errors.
func (s *Shard) where() string {
	return fmt.Sprintf("store %s, shard %s (%s)", s.o.Store.Name, s.o.Shard.Name, s.path)
}
