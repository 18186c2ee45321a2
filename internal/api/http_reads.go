package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// table finds the table that the path names.
func (q *request) table() (*schema.Table, error) { return q.tableNamed(q.r.PathValue("table")) }

// tableNamed answers the same for a table that is not there and one that the
// client has no right to only when rights are not bounded to tables: the names
// of others' tables are theirs.
func (q *request) tableNamed(name string) (*schema.Table, error) {
	if t := q.schema.Tables[name]; t != nil {
		return t, nil
	}
	if !q.who.AllTables() {
		if err := q.who.may(true, "use", name); err != nil {
			return nil, err
		}
	}
	return nil, sluice.Errorf(sluice.NotFound, "no_table", "there is no table %.80q; `tables` in the config lists them", name)
}

// pathKey reads the key at the end of the path: the plain value, and for a key
// of several columns [42,7], {"user_id":42,"post_id":7} or 42,7.
func (q *request) pathKey(t *schema.Table) ([]byte, error) {
	text := q.r.PathValue("key")
	if len(t.Key) == 1 || strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		return t.KeyFromText(nil, []byte(text))
	}
	parts := strings.Split(text, ",")
	if len(parts) != len(t.Key) {
		return nil, sluice.Errorf(sluice.Invalid, "bad_key", "key %.80q of %s has %d of %d values; write them with commas between, or as a JSON array when a value has a comma in it",
			text, t.Name, len(parts), len(t.Key))
	}
	key := make([]sluice.Value, len(parts))
	for i, part := range parts {
		v, _, err := schema.ParseText(nil, t.Key[i].Type, []byte(part))
		if err != nil {
			return nil, sluice.Errorf(sluice.Invalid, "bad_key", "key column %s of %s: %w", t.Key[i].Name, t.Name, err)
		}
		key[i] = v
	}
	return t.AppendKey(nil, key)
}

// getTable answers the row of one key.
func (q *request) getTable() error {
	t, err := q.table()
	if err != nil {
		return err
	}
	key, err := q.pathKey(t)
	if err != nil {
		return err
	}
	query := q.r.URL.Query()
	read := sluice.ReadQuery{Table: t.Name, Keys: [][]byte{key}}
	if groups := query.Get("groups"); groups != "" {
		read.Groups = strings.Split(groups, ",")
	}
	rows, err := q.read(t, &read, query.Get("receipt"), query.Get("wait"))
	if err != nil {
		return err
	}
	if len(rows) == 1 && rows[0].Found {
		return q.sendJSON(http.StatusOK, &rows[0])
	}
	// A problem that also says how fresh this is: the row may come yet.
	e := &sluice.Error{Code: sluice.NotFound, Reason: "no_row", Detail: "the table has no row with this key"}
	b := q.appendError(append(q.out[:0], `{"type":"about:blank","title":"Not Found","status":404,`...), e)
	if len(rows) == 1 {
		stale, err := marshal(rows[0].StaleBy)
		if err != nil {
			return err
		}
		b = append(append(b, `,"stale_by_ns":`...), stale...)
	}
	q.out = append(b, '}', '\n')
	q.send(http.StatusNotFound, problemType)
	return nil
}

// read checks the rights and what the query says, and reads.
func (q *request) read(t *schema.Table, read *sluice.ReadQuery, receipt, wait string) ([]sluice.Row, error) {
	if err := q.who.MayRead(t.Name); err != nil {
		return nil, err
	}
	for _, name := range read.Groups {
		if g := t.Group([]byte(name)); g == nil || g.Events {
			return nil, sluice.Errorf(sluice.NotFound, "no_group", "table %s has no group %.80q that can be read by key", t.Name, name)
		}
	}
	var err error
	if read.Wait, err = q.duration(wait); err != nil {
		return nil, err
	}
	if receipt != "" {
		if read.After, err = sluice.ParseReceipt(receipt); err != nil {
			return nil, err
		}
		if wait == "" {
			read.Wait = q.schema.Limits.WaitMax
		}
	}
	ctx, cancel := q.waiting()
	defer cancel()
	return q.h.o.Reads.Read(ctx, *read)
}

// readsBody is what POST /v1/reads takes.
type readsBody struct {
	Table   string            `json:"table"`
	Keys    []json.RawMessage `json:"keys"`
	Groups  []string          `json:"groups"`
	Receipt string            `json:"receipt"`
	Wait    string            `json:"wait"`
}

// postReads answers the rows of many keys of one table, in their order.
func (q *request) postReads() error {
	if err := q.who.MayRead(""); err != nil {
		return err
	}
	if err := q.readBody(); err != nil {
		return err
	}
	var body readsBody
	dec := json.NewDecoder(bytes.NewReader(q.text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		return sluice.Errorf(sluice.Invalid, "bad_json", `%w; a read is one object like {"table":"posts","keys":[1,2]}, with groups, receipt and wait if wanted`, err)
	}
	t, err := q.tableNamed(body.Table)
	if err != nil {
		return err
	}
	if limit := q.schema.Limits.MultiReadKeysMax; len(body.Keys) > limit {
		return sluice.Errorf(sluice.TooLarge, "read_keys", "%d keys are more than %d, the limit `read_keys`; ask in several requests", len(body.Keys), limit)
	}
	read := sluice.ReadQuery{Table: t.Name, Groups: body.Groups, Keys: make([][]byte, len(body.Keys))}
	for i, raw := range body.Keys {
		if read.Keys[i], err = t.KeyFromJSON(nil, raw); err != nil {
			return sluice.Errorf(sluice.Invalid, "bad_key", "key %d: %w", i+1, err)
		}
	}
	rows, err := q.read(t, &read, body.Receipt, body.Wait)
	if err != nil {
		return err
	}
	return q.sendJSON(http.StatusOK, map[string]any{"rows": rows})
}

// getReceipt says what became of a write, of the tables that the client may read (R1).
func (q *request) getReceipt() error {
	r, err := sluice.ParseReceipt(q.r.PathValue("receipt"))
	if err != nil {
		return err
	}
	wait, err := q.duration(q.r.URL.Query().Get("wait"))
	if err != nil {
		return err
	}
	if err := q.mayReadReceipt(r); err != nil {
		return err
	}
	ctx, cancel := q.waiting()
	defer cancel()
	state, err := q.h.o.Reads.Receipt(ctx, r, wait)
	if err != nil {
		return err
	}
	return q.sendJSON(http.StatusOK, &state)
}

// mayReadReceipt takes the groups out of the receipt that the client may not
// read. Keys are hashes over group and key, so those of the groups taken out
// name nothing in the others.
func (q *request) mayReadReceipt(r *sluice.Receipt) error {
	if q.who.AllTables() {
		return q.who.MayRead("")
	}
	groups := r.Groups[:0]
	for _, g := range r.Groups {
		if known := q.schema.Group(g.Group); known != nil && q.who.MayRead(known.Table.Name) == nil {
			groups = append(groups, g)
		}
	}
	if r.Groups = groups; len(groups) == 0 {
		return sluice.Errorf(sluice.Denied, "not_allowed", "client %q may not read the tables of this receipt", q.who.Name)
	}
	return nil
}

// getRoute says where a key lives.
func (q *request) getRoute() error {
	t, err := q.table()
	if err != nil {
		return err
	}
	if err := q.who.MayRead(t.Name); err != nil {
		return err
	}
	key, err := q.pathKey(t)
	if err != nil {
		return err
	}
	return q.sendJSON(http.StatusOK, q.h.o.Reads.Route(t, key))
}
