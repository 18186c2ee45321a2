package store

import (
	"strconv"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Refusal is a database's no to one row (S10). It is not an error of the batch.
type Refusal struct {
	SQLState string
	Reason   string
	// Parents are the tables in which a row may be missing (23503), as the
	// database names them.
	Parents []string
}

func (r *Refusal) Error() string { return r.SQLState + ": " + r.Reason }

// NewReject makes the reject of an entry, but for what only the shard knows:
// Store, Shard, At and Entry. A replay's is that of the reject it replays.
func NewReject(g *schema.Group, e *sluice.Entry, why *Refusal) sluice.Reject {
	r := sluice.Reject{
		Table: g.Table.Name, Group: g.Name, GroupID: g.ID,
		Key: g.Table.AppendKeyJSON(nil, e.Key), Change: AppendChangeJSON(nil, g, e),
		SQLState: why.SQLState, Reason: why.Reason, State: "open",
		Writes: e.Writes, KeyHash: sluice.KeyHash(g.ID, e.Key), Partition: e.Partition(),
		Commit: e.Commit, Ordinal: e.Ordinal,
	}
	if e.Replay != 0 {
		r.Commit, r.Ordinal = RejectOf(e.Replay)
	}
	r.ID = RejectID(r.Commit, r.Ordinal)
	return r
}

// RejectID is a reject's id as people see it.
func RejectID(commit uint64, ordinal uint32) string {
	return strconv.FormatUint(commit, 10) + "." + strconv.FormatUint(uint64(ordinal), 10)
}

// AppendChangeJSON says what an entry changes, in the words of a write:
// {"delete":true,"set":{...},"add":{...}}. Elements of a unique column are in
// the journal as hashes only, so their number stands for them.
func AppendChangeJSON(dst []byte, g *schema.Group, e *sluice.Entry) []byte {
	dst = append(dst, '{')
	from := len(dst)
	if e.Reset {
		dst = append(dst, `"delete":true`...)
	}
	for _, verb := range []string{"set", "add", "max", "min", "unique", "append"} {
		first := true
		for i := range e.Cells {
			c := g.ByID(e.Cells[i].Column)
			if c == nil || verbOf(g, c) != verb {
				continue
			}
			if first && len(dst) > from {
				dst = append(dst, ',')
			}
			if first {
				dst = append(append(append(dst, '"'), verb...), `":{`...)
			} else {
				dst = append(dst, ',')
			}
			first = false
			dst = append(strconv.AppendQuote(dst, c.Name), ':') // names are identifiers: no escape is needed
			dst = appendCell(dst, c, e.Cells[i].Value)
		}
		if !first {
			dst = append(dst, '}')
		}
	}
	return append(dst, '}')
}

func verbOf(g *schema.Group, c *schema.Column) string {
	switch {
	case g.Events:
		return "append"
	case c.Merge == schema.Sum:
		return "add"
	}
	return c.Merge.String()
}

func appendCell(dst []byte, c *schema.Column, v sluice.Value) []byte {
	switch v.Kind {
	case sluice.Hashes:
		return append(strconv.AppendInt(append(dst, `"`...), int64(len(v.Bytes)/8), 10), ` elements"`...)
	case sluice.Sketch:
		return append(dst, `"many elements"`...)
	}
	return schema.AppendJSON(dst, c.Type, v)
}
