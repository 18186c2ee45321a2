package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"time"

	"sluice.dev/sluice"
)

// random makes writes. Keys are dealt out to workers, so that the order of a
// key's writes is that of its worker; everything else is left to chance.
//
// What a later write of the same batch replaces is never seen by the database: a
// value that it would refuse is then not refused, and a row that a delete resets
// is not made. Only where each write is awaited may every key be given good and
// bad values; else a key's values are all good or all bad, and deletes (which set
// defaults) meet rows that were there before.
type random struct {
	*rand.Rand
	worker, workers int
	alone           bool
}

// bad tells whether the next value for the key is one to be refused.
func (r *random) bad(always bool) bool {
	if r.alone {
		return r.IntN(3) == 0
	}
	return always
}

func (r *random) key(of int) int64 { return int64(r.IntN(of/r.workers)*r.workers + r.worker) }

func (r *random) write() sluice.Write {
	switch r.IntN(12) {
	case 0, 1, 2, 3:
		return r.post()
	case 4:
		return r.clicks()
	case 5, 6:
		return r.timeline()
	case 7:
		return r.car()
	case 8:
		return r.old()
	case 9:
		return r.stock()
	case 10:
		return r.box()
	default:
		return r.order()
	}
}

// sometimes tells whether a part is there.
func (r *random) sometimes(fn func()) {
	if r.IntN(3) == 0 {
		fn()
	}
}

var words = []string{"", "a", "it's", `"quoted"`, "naïve ☃ 日本", `back\slash`, "{curly,}", "line\nbreak", "NULL", "$1", "50%"}

func (r *random) word() string { return words[r.IntN(len(words))] }

func (r *random) orNull(v any) any {
	if r.IntN(8) == 0 {
		return nil
	}
	return v
}

func (r *random) decimal() string { return fmt.Sprintf("%d.%03d", r.IntN(400)-200, r.IntN(1000)) }

func (r *random) instant() string {
	return time.UnixMicro(1_600_000_000_000_000 + r.Int64N(100_000_000_000_000)).UTC().Format("2006-01-02T15:04:05.000000Z")
}

func (r *random) post() sluice.Write {
	w := sluice.Write{Table: "posts", Key: r.key(48)}
	if r.IntN(15) == 0 {
		w.Delete = true
		return w
	}
	w.Set, w.Add, w.Max, w.Min, w.Unique = map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}
	for name, make := range map[string]func() any{
		"title": func() any { return r.word() },
		"doc":   func() any { return map[string]any{"n": r.IntN(9), "w": r.word(), "l": []any{true, nil, "x"}} },
		"tags":  func() any { return []string{r.word(), r.word()} },
		"at":    func() any { return r.instant() },
		"day":   func() any { return r.instant()[:10] },
		"ref":   func() any { return fmt.Sprintf("00000000-0000-4000-8000-%012x", r.IntN(1<<30)) },
		"ok":    func() any { return r.IntN(2) == 0 },
		"score": func() any { return float64(r.IntN(1000)) / 8 },
		"raw":   func() any { return []byte{0, byte(r.IntN(256)), 255}[:r.IntN(4)] },
	} {
		if r.IntN(6) == 0 {
			w.Set[name] = r.orNull(make())
		}
	}
	r.sometimes(func() { w.Add["likes"] = r.IntN(30) - 9 })
	r.sometimes(func() { w.Add["cost"] = r.decimal() })
	r.sometimes(func() { w.Max["high"] = r.IntN(2000) - 1000 })
	r.sometimes(func() { w.Min["low"] = r.decimal() })
	r.sometimes(func() { w.Max["seen"] = r.instant() })
	r.sometimes(func() { w.Unique["viewers"] = fmt.Sprint("v", r.IntN(600)) })
	if len(w.Set)+len(w.Add)+len(w.Max)+len(w.Min)+len(w.Unique) == 0 {
		w.Add["likes"] = 1
	}
	return w
}

func (r *random) clicks() sluice.Write {
	return sluice.Write{Table: "posts", Key: r.key(48), Append: map[string]map[string]any{"clicks": {"what": r.orNull(r.word()), "n": r.IntN(5)}}}
}

func (r *random) timeline() sluice.Write {
	w := sluice.Write{Table: "timeline", Key: map[string]any{"user_id": r.key(24), "post": r.word() + fmt.Sprint(r.IntN(3))}}
	if r.IntN(6) == 0 {
		w.Delete = true
		return w
	}
	w.Set = map[string]any{"note": r.orNull(r.word())}
	r.sometimes(func() { w.Add = map[string]any{"hits": r.IntN(9)} })
	return w
}

func (r *random) car() sluice.Write {
	w := sluice.Write{Table: "cars", Key: fmt.Sprint("car", r.key(12))}
	if r.IntN(10) == 0 {
		w.Delete = true
		return w
	}
	w.Set = map[string]any{"at": r.IntN(300)}
	r.sometimes(func() { w.Set["place"] = r.orNull(r.word()) })
	r.sometimes(func() { w.Set["speed"] = r.IntN(100) })
	return w
}

func (r *random) old() sluice.Write {
	key := r.key(18)
	w := sluice.Write{Table: "old", Key: key, Set: map[string]any{}, Add: map[string]any{}}
	kind := r.IntN(8)
	switch {
	case kind == 0 && (r.alone || key == 0 || key == 3):
		return sluice.Write{Table: "old", Key: key, Delete: true}
	case kind < 3 && r.bad(key%6 == 1):
		w.Set["title"] = []any{nil, "much too long"}[r.IntN(2)]
	case kind < 3:
		w.Set["title"] = fmt.Sprint("t", r.IntN(1000))
	case kind == 3 && r.bad(key%6 == 2):
		w.Set["code"] = fmt.Sprint("taken", 1+r.IntN(2))
	case kind == 3:
		w.Set["code"] = fmt.Sprint("c", key)
	case kind == 4:
		w.Max = map[string]any{"high": r.IntN(1000)}
	default:
		w.Add["likes"] = r.IntN(20) - 5
	}
	r.sometimes(func() { w.Add["likes"] = r.IntN(20) - 5 })
	return w
}

func (r *random) stock() sluice.Write {
	key := r.key(24) // 20 and above and odd ones are not there
	w := sluice.Write{Table: "stock", Key: key}
	switch {
	case r.IntN(2) == 0:
		w.Add = map[string]any{"sold": 1 + r.IntN(4)}
	case r.bad(key%4 == 0):
		w.Set = map[string]any{"label": "bad"}
		r.sometimes(func() { w.Add = map[string]any{"sold": 1 + r.IntN(4)} })
	case key%4 == 2 && (key < 20 || r.alone) && r.IntN(4) == 0:
		w.Delete = true
	default:
		w.Set = map[string]any{"label": fmt.Sprint("l", r.IntN(100))}
	}
	return w
}

func (r *random) box() sluice.Write {
	w := sluice.Write{Table: "boxes", Key: r.key(12)}
	switch r.IntN(5) {
	case 0:
		w.Delete = true
	case 1:
		w.Set = map[string]any{"name": r.word()}
	default:
		w.Add = map[string]any{"n": r.IntN(7) - 2}
	}
	return w
}

func (r *random) order() sluice.Write {
	w := sluice.Write{Table: "orders", Key: r.key(24)} // only every third is there, and none can be made
	if r.IntN(2) == 0 {
		w.Set = map[string]any{"state": r.word()}
	} else {
		w.Add = map[string]any{"items": 1 + r.IntN(3)}
	}
	return w
}
