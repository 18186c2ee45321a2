package client

import (
	"encoding/json"
	"iter"
	"math"
	"slices"

	"sluice.dev/sluice"
)

// folder adds up sums to the same key. It folds only what it was told is a sum,
// and only whole numbers: nothing else can be added without a loss here.
type folder struct {
	sums  map[string][]string
	byKey map[string]*folded
	order []string // keys as they came first; a key that was taken is not in byKey
	size  int      // bytes that the lines take at most
}

// folded is the open sum of one key.
type folded struct {
	table string
	key   any
	add   map[string]int64
}

// Bounds for the size of a folded line: of its frame, and of each number.
const (
	foldedFrameBytes  = 64
	foldedNumberBytes = 32
)

func (f *folder) init(sums map[string][]string) {
	f.sums, f.byKey = sums, make(map[string]*folded)
}

func (f *folder) len() int   { return len(f.byKey) }
func (f *folder) bytes() int { return f.size }

// key names table and key of a write; "" when nothing is folded.
func (f *folder) key(w *sluice.Write) (string, error) {
	if len(f.sums) == 0 {
		return "", nil
	}
	name, err := json.Marshal([]any{w.Table, w.Key})
	return string(name), err
}

// cost is by how many bytes a request grows, at most, when w is folded.
func (f *folder) cost(w *sluice.Write, key string) int {
	at, n := f.byKey[key], 0
	if at == nil {
		n = len(key) + foldedFrameBytes
	}
	for column := range w.Add {
		if at == nil || !at.has(column) {
			n += len(column) + foldedNumberBytes
		}
	}
	return n
}

func (at *folded) has(column string) bool {
	_, ok := at.add[column]
	return ok
}

// add folds w, which is lawful to fold; false when the sum has no room for it.
func (f *folder) add(w *sluice.Write, key string) bool {
	at := f.byKey[key]
	if at == nil {
		at = &folded{table: w.Table, key: w.Key, add: make(map[string]int64)}
	}
	for column, v := range w.Add {
		n, _ := whole(v)
		if sum := at.add[column] + n; (sum > at.add[column]) != (n > 0) && n != 0 {
			return false // overflow: two lines
		}
	}
	f.size += f.cost(w, key)
	if f.byKey[key] == nil {
		f.byKey[key] = at
		f.order = append(f.order, key)
	}
	for column, v := range w.Add {
		n, _ := whole(v)
		at.add[column] += n
	}
	return true
}

// lawful tells whether w is nothing but sums that were named, of whole numbers.
func (f *folder) lawful(w *sluice.Write) bool {
	columns := f.sums[w.Table]
	if len(w.Add) == 0 || w.Delete || len(w.Set)+len(w.Max)+len(w.Min)+len(w.Unique)+len(w.Append) > 0 {
		return false
	}
	for column, v := range w.Add {
		if _, ok := whole(v); !ok || !slices.Contains(columns, column) {
			return false
		}
	}
	return true
}

// whole gives the Go integers that are int64.
func whole(v any) (int64, bool) {
	switch n := v.(type) {
	case int:
		return int64(n), true
	case int64:
		return n, true
	case int32:
		return int64(n), true
	case uint32:
		return int64(n), true
	case uint64:
		return int64(n), n <= math.MaxInt64
	case json.Number:
		i, err := n.Int64()
		return i, err == nil
	}
	return 0, false
}

// keys gives the open keys in the order they came.
func (f *folder) keys() iter.Seq[string] {
	return func(yield func(string) bool) {
		order := f.order
		for _, key := range order {
			if f.byKey[key] != nil && !yield(key) {
				return
			}
		}
		if len(f.byKey) == 0 {
			f.order, f.size = f.order[:0], 0
		}
	}
}

// take gives the line of a key and forgets it; nil when there is none.
func (f *folder) take(key string) []byte {
	at := f.byKey[key]
	if at == nil {
		return nil
	}
	delete(f.byKey, key)
	// Its key went through json.Marshal before, and the rest are numbers.
	line, _ := json.Marshal(map[string]any{"table": at.table, "key": at.key, "add": at.add})
	return line
}
