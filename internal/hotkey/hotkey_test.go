package hotkey

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"sluice.dev/sluice"
)

const theGroup sluice.GroupID = 3

// stand is a Tracker on a virtual clock, with exact counts beside it.
type stand struct {
	t      *testing.T
	track  *Tracker
	now    int64
	ends   int64
	counts []map[uint64]uint64 // of the open window, of the span, and of the window before it; newest first
	totals []uint64
	first  map[uint64]int64 // when a key became hot
	cooled int
	told   int // keys told to be hot
	wrong  int // of them, without the share
}

func newStand(t *testing.T) *stand {
	s := &stand{t: t, track: New(), ends: windowMicros, first: map[uint64]int64{}}
	for range Windows + 2 {
		s.counts, s.totals = append(s.counts, map[uint64]uint64{}), append(s.totals, 0)
	}
	return s
}

// write moves time on by step and writes.
func (s *stand) write(key uint64, n uint32, step int64) {
	s.pass(step)
	s.counts[0][key] += uint64(n)
	s.totals[0] += uint64(n)
	add(s.track, theGroup, binary.BigEndian.AppendUint64(nil, key), n, s.now)
}

// add is a batch of one.
func add(t *Tracker, id sluice.GroupID, key []byte, n uint32, now int64) {
	b := t.Begin(now)
	defer b.End()
	b.Add(id, key, n)
}

// pass lets time go by, window by window, and looks at each end.
func (s *stand) pass(micros int64) {
	for to := s.now + micros; ; {
		if to < s.ends {
			s.now = to
			return
		}
		s.now = s.ends
		s.ends += windowMicros
		s.counts = append([]map[uint64]uint64{{}}, s.counts[:Windows+1]...)
		s.totals = append([]uint64{0}, s.totals[:Windows+1]...)
		s.look()
	}
}

// exact gives the writes of the span, all and by key.
func (s *stand) exact() (of uint64, exact map[uint64]uint64) {
	exact = map[uint64]uint64{}
	for i, w := range s.counts[1 : Windows+1] {
		of += s.totals[i+1]
		for key, n := range w {
			exact[key] += n
		}
	}
	return of, exact
}

// look holds what the Tracker says against the exact counts.
func (s *stand) look() {
	s.t.Helper()
	of, exact := s.exact()
	for _, c := range s.track.Step(s.now) {
		key := binary.BigEndian.Uint64(c.Key.Key)
		if !c.Hot {
			s.cooled++
			delete(s.first, key)
			continue
		}
		s.first[key] = s.now
		s.told++
		if exact[key]*100 < of || exact[key] < writesMin {
			s.wrong++
		}
	}
	hot := map[uint64]bool{}
	for _, k := range s.track.Keys(s.now) {
		key := binary.BigEndian.Uint64(k.Key)
		hot[key] = true
		if n := exact[key]; n < k.Writes || n > k.Writes+k.Unsure || k.Of != of {
			s.t.Fatalf("at %d µs: key %d has %d of %d writes; said at least %d, %d more at most, of %d", s.now, key, n, of, k.Writes, k.Unsure, k.Of)
		}
	}
	for key, n := range exact {
		if certain := float64(n) >= (.01+errorMax)*float64(of); certain && n >= writesMin && !hot[key] {
			s.t.Fatalf("at %d µs: key %d has %d of %d writes and is not known", s.now, key, n, of)
		}
		if s.steady(key) && n >= writesMin && !hot[key] {
			s.t.Fatalf("at %d µs: key %d has 1 %% of each window, %d of %d writes, and is not known", s.now, key, n, of)
		}
	}
}

// steady keys had 1 % of each window of the span, and of the window before it.
func (s *stand) steady(key uint64) bool {
	for i, w := range s.counts[1:] {
		if s.totals[i+1] == 0 || w[key]*100 < s.totals[i+1] {
			return false
		}
	}
	return true
}

func TestZipf(t *testing.T) {
	for _, skew := range []float64{1.01, 1.1, 1.5} {
		t.Run(fmt.Sprint(skew), func(t *testing.T) {
			s := newStand(t)
			rnd := rand.New(rand.NewPCG(7, 7))
			zipf := rand.NewZipf(rnd, skew, 1, 1e6)
			for range 400_000 { // 100,000 a second
				s.write(zipf.Uint64(), 1, 10)
			}
			if s.told < 5 || s.wrong > 0 {
				t.Errorf("%d keys became hot, %d of them without the share", s.told, s.wrong)
			}
			s.allOf(.01)
			s.pass(3 * CoolAfter.Microseconds())
			if left := s.track.Keys(s.now); len(left) > 0 || s.cooled != s.told {
				t.Errorf("%d became hot, %d cool, %d are still known", s.told, s.cooled, len(left))
			}
		})
	}
}

// allOf wants every key with this share of the span to be known: where writes
// come in a random order no count is wrong that matters.
func (s *stand) allOf(share float64) {
	s.t.Helper()
	of, exact := s.exact()
	hot := map[uint64]bool{}
	for _, k := range s.track.Keys(s.now) {
		hot[binary.BigEndian.Uint64(k.Key)] = true
	}
	found := 0
	for key, n := range exact {
		if float64(n) < share*float64(of) {
			continue
		}
		found++
		if !hot[key] {
			s.t.Errorf("key %d has %d of %d writes and is not known", key, n, of)
		}
	}
	if found == 0 {
		s.t.Error("no key has the share: the test tests nothing")
	}
}

// Whenever it begins, and whatever else is written: a key with 1 % is known
// within a second.
func TestKnownWithinASecond(t *testing.T) {
	for _, percent := range []int{1, 2, 5, 50} {
		for offset := int64(0); offset < windowMicros; offset += 13_700 {
			s := newStand(t)
			noise := uint64(1000)
			each := func(until int64, hot bool) {
				for i := 0; s.now < until; i++ {
					noise++
					if hot && i%100 < percent {
						s.write(1, 1, 50)
					} else {
						s.write(noise, 1, 50)
					}
				}
			}
			each(windowMicros*3+offset, false)
			began := s.now
			each(began+1_000_000, true)
			if at, known := s.first[1]; !known || at-began > 1_000_000 {
				t.Fatalf("%d %%, begun %d µs into a window: known %t after %d µs", percent, offset, known, at-began)
			}
			if s.told != 1 {
				t.Errorf("%d keys became hot, there is one", s.told)
			}
		}
	}
}

// The worst order: tens of thousands of keys that are written once come first.
// Of those at the limit, twenty have 1 %, and are evicted again and again before
// they have many writes; sixty have 0.99 % and all of it at the end, so that their
// counts seem to be 1 %.
func TestAdversaryGetsNoFalseAlarmAndHidesNothing(t *testing.T) {
	s := newStand(t)
	const above, below, once, rounds = 20, 60, 30_000, 20
	whole := once / (1 - above*.01001 - below*.0099)
	noise := uint64(1 << 20)
	for range 8 {
		for i := range once {
			if i%(once/rounds) == 0 {
				for key := range uint64(above) {
					s.write(key, 1, 0)
				}
			}
			noise++
			s.write(noise, 1, 4)
		}
		for key := range uint64(above + below) {
			n := uint32(.01001*whole) + 1 - rounds
			if key >= above {
				n = uint32(.0099 * whole)
			}
			s.write(key, n, 100)
		}
		s.pass(s.ends - s.now)
	}
	for key := range uint64(above + below) {
		if _, hot := s.first[key]; hot != (key < above) {
			t.Errorf("key %d hot: %t", key, hot)
		}
	}
	if s.wrong > 0 {
		t.Errorf("%d false alarms of %d", s.wrong, s.told)
	}
}

func TestHotUntilItWasColdForAWhile(t *testing.T) {
	s := newStand(t)
	run := func(seconds float64, every int) {
		for i := range int(seconds * 10_000) {
			key := uint64(i) + 1000
			if i%every == 0 {
				key = 1
			}
			s.write(key, 1, 100)
		}
	}
	run(1, 50)
	since := s.track.Keys(s.now)[0].Since
	run(8, 150) // between the two limits
	run(4, 300) // below both, not yet for long
	keys := s.track.Keys(s.now)
	if len(keys) != 1 || !keys[0].Cooling || keys[0].Since != since {
		t.Fatalf("%+v", keys)
	}
	run(1, 50)
	if keys = s.track.Keys(s.now); len(keys) != 1 || keys[0].Cooling || s.told != 1 || s.cooled != 0 {
		t.Fatalf("warm again: %+v, told %d times", keys, s.told)
	}
	run(6, 300)
	if keys = s.track.Keys(s.now); len(keys) != 0 || s.cooled != 1 {
		t.Errorf("cold for 6 s: %+v, %d became cool", keys, s.cooled)
	}
}

func TestKeysOfQuietGroupsAreNotHot(t *testing.T) {
	s := newStand(t)
	for range 100 { // 20 a second
		s.write(1, 1, 50_000)
	}
	if s.told > 0 {
		t.Errorf("%d keys of a group with 20 writes a second became hot", s.told)
	}
}

func TestAfterAPauseTheSpanIsEmpty(t *testing.T) {
	track := New()
	at := int64(0)
	for range 10_000 {
		at += 100
		add(track, theGroup, []byte("k"), 1, at)
	}
	if keys := track.Keys(at); len(keys) != 1 || string(keys[0].Key) != "k" {
		t.Fatalf("%+v", keys)
	}
	at += 3_600_000_000 // nobody asked meanwhile
	if keys := track.Keys(at); len(keys) != 0 {
		t.Errorf("an hour later: %+v", keys)
	}
	add(track, theGroup, []byte("k"), 1, at)
	if changes := track.Step(at); len(changes) != 2 || !changes[0].Hot || changes[1].Hot {
		t.Errorf("changes: %+v", changes)
	}
}

// New hot keys all the time, and nobody who asks: memory stays bounded.
func TestBounded(t *testing.T) {
	s := newStand(t)
	for key := range uint64(3000) {
		s.write(key, 100, 7000) // each has 1.2 % of a span
	}
	if s.told < 2900 {
		t.Errorf("%d keys became hot, about 3,000 should", s.told)
	}
	g := s.track.groups[theGroup]
	if len(g.hot) > hotMax || len(g.names) > namesMax {
		t.Errorf("%d hot, %d names", len(g.hot), len(g.names))
	}
	for _, w := range append(g.span[:], g.open) {
		if cap(w.counters) > 2048 || len(w.index) > 2048 || w.seeds > seedsMax || len(w.heavy) > 250 {
			t.Errorf("%d counters, index of %d, %d seeds, %d heavy", cap(w.counters), len(w.index), w.seeds, len(w.heavy))
		}
	}
	if s.wrong > 0 {
		t.Errorf("%d false alarms of %d", s.wrong, s.told)
	}
	track := New()
	for i := range 3000 {
		add(track, theGroup, binary.BigEndian.AppendUint64(nil, uint64(i)), 100, int64(i)*7000) // nobody calls Step
	}
	if len(track.changes) != changesMax {
		t.Errorf("%d changes wait", len(track.changes))
	}
}

func TestGroupsDoNotMix(t *testing.T) {
	track := New()
	for at := range int64(20_000) {
		add(track, 1, []byte("a"), 1, at*50)
		add(track, 2, binary.BigEndian.AppendUint64(nil, uint64(at)), 1, at*50)
	}
	if keys := track.Keys(1_000_000); len(keys) != 1 || keys[0].Group != 1 || keys[0].Share() != 1 || math.Abs(keys[0].PerSecond()-20_000) > 100 {
		t.Errorf("%+v", keys)
	}
	var none *Tracker
	add(none, 1, []byte("a"), 1, 1) // a pipeline without one
}

func TestManyAtOnce(t *testing.T) {
	track := New()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for at := range int64(20_000) {
				key := []byte("hot")
				if at%4 > 0 {
					key = binary.BigEndian.AppendUint64(nil, uint64(at)<<8|uint64(w))
				}
				add(track, theGroup, key, 1, at*50)
				if at%1000 == 0 {
					track.Keys(at * 50)
					track.Step(at * 50)
				}
			}
		})
	}
	wg.Wait()
	if keys := track.Keys(1_000_000); len(keys) != 1 || string(keys[0].Key) != "hot" {
		t.Errorf("%+v", keys)
	}
}
