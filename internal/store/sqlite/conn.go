package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	sqlite "modernc.org/sqlite"
)

// statementsMax bounds the prepared statements that a connection keeps. A group
// has one for each set of columns that writes name together.
const statementsMax = 256

// conn is one connection, used by one goroutine at a time. It goes to the
// driver without database/sql: one prepared statement per row is as fast as the
// best multi-row statement here (a statement costs no round trip, and the driver
// binds many arguments in quadratic time), and database/sql would allocate for
// each. Statements run without a context, since a row takes microseconds; who
// loops over rows looks at its context between them.
type conn struct {
	c     driver.Conn
	stmts map[string]*stmt
}

type stmt struct {
	exec  driver.StmtExecContext
	query driver.StmtQueryContext
	close func() error
	args  []driver.NamedValue
}

func openConn(path string, pragmas ...string) (*conn, error) {
	c, err := new(sqlite.Driver).Open(path)
	if err != nil {
		return nil, err
	}
	out := &conn{c: c, stmts: map[string]*stmt{}}
	for _, p := range pragmas {
		// Asked, not executed: journal_mode answers a row and may not do what it is told.
		if _, err := out.texts("PRAGMA " + p); err != nil {
			c.Close()
			return nil, fmt.Errorf("PRAGMA %s: %w", p, err)
		}
	}
	return out, nil
}

func (c *conn) prepare(query string) (*stmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	if len(c.stmts) >= statementsMax {
		c.forget()
	}
	s, err := c.c.Prepare(query)
	if err != nil {
		return nil, err
	}
	st := &stmt{exec: s.(driver.StmtExecContext), query: s.(driver.StmtQueryContext), close: s.Close}
	c.stmts[query] = st
	return st, nil
}

// forget closes all prepared statements.
func (c *conn) forget() {
	for _, s := range c.stmts {
		s.close()
	}
	clear(c.stmts)
}

// bind fills the statement's arguments, which it keeps between calls.
func (s *stmt) bind(args []driver.Value) []driver.NamedValue {
	for len(s.args) < len(args) {
		s.args = append(s.args, driver.NamedValue{Ordinal: len(s.args) + 1})
	}
	for i, a := range args {
		s.args[i].Value = a
	}
	return s.args[:len(args)]
}

// exec runs a statement and says how many rows it changed.
func (c *conn) exec(query string, args ...driver.Value) (int64, error) {
	s, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := s.exec.ExecContext(context.Background(), s.bind(args))
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// run executes statements that are used once and not worth keeping.
func (c *conn) run(statements ...string) error {
	for _, q := range statements {
		if _, err := c.c.(driver.ExecerContext).ExecContext(context.Background(), q, nil); err != nil {
			return fmt.Errorf("%w (in %q)", err, q)
		}
	}
	return nil
}

// each calls f for each row; the values are f's to keep, the slice is not. f
// must not use the connection: preparing may close the statement under way.
func (c *conn) each(query string, args []driver.Value, f func(row []driver.Value) error) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.query.QueryContext(context.Background(), s.bind(args))
	if err != nil {
		return err
	}
	row := make([]driver.Value, len(rows.Columns()))
	for err == nil {
		if err = rows.Next(row); err == nil {
			err = f(row)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, rows.Close())
}

// row gives the first row; nil when there is none.
func (c *conn) row(query string, args ...driver.Value) (out []driver.Value, err error) {
	err = c.each(query, args, func(row []driver.Value) error {
		if out == nil {
			out = append(out, row...)
		}
		return nil
	})
	return out, err
}

// texts gives the first column of each row as text.
func (c *conn) texts(query string, args ...driver.Value) (out []string, err error) {
	err = c.each(query, args, func(row []driver.Value) error {
		out = append(out, text(row[0]))
		return nil
	})
	return out, err
}

func text(v driver.Value) string {
	switch x := v.(type) {
	case nil:
		return ""
	case string:
		return x
	case []byte:
		return string(x)
	}
	return fmt.Sprint(v)
}

// integer reads a column that Sluice wrote as one.
func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

// deferredMisses tells whether the transaction holds rows that a deferred
// foreign key will refuse at COMMIT.
func (c *conn) deferredMisses() (bool, error) {
	n, _, err := c.c.(sqlite.DBStatus).Status(sqlite.DBStatusDeferredFKs, false)
	return n != 0, err
}

func (c *conn) close() error {
	c.forget()
	return c.c.Close()
}
