package sim_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// profile is what a seed draws once: which faults there are, how often, and how
// large things are. A run with few kinds of faults reaches states that a run
// with all of them never does.
type profile struct {
	steps, clients, keys int

	// Of the process and its disk, in percent of the faults drawn.
	kill, cut, syncFail, crashAt, restart, full, flip, jump, reload, older int
	// Of databases and the network to them, in percent of the faults drawn.
	lose, failover, down, lock int
	// Of single calls, in percent.
	network, stall, late, slowSync int

	refuse                   int // percent of titles that the database refuses
	deletes, doubles, giveUp int // percent
	segment, journal         int64
	retain                   time.Duration
	batch, parked            int
}

func newProfile(rng *rand.Rand) profile {
	some := func(share, most int) int {
		if rng.IntN(100) >= share {
			return 0
		}
		return 1 + rng.IntN(most)
	}
	p := profile{
		steps: 200 + rng.IntN(300), clients: 3 + rng.IntN(4), keys: 2 + rng.IntN(10),
		kill: some(60, 20), cut: some(60, 20), syncFail: some(30, 10), crashAt: some(40, 15), restart: some(40, 10), full: some(25, 10),
		flip: some(50, 15), jump: some(30, 10), reload: some(40, 8), older: some(15, 10),
		lose: some(60, 25), failover: some(40, 12), down: some(40, 15), lock: some(50, 15),
		network: some(60, 12), stall: some(60, 12), late: some(40, 8), slowSync: some(50, 15),
		refuse: some(50, 30), deletes: some(60, 8), doubles: some(70, 20), giveUp: some(50, 15),
		segment: 64 << 10, journal: 16 << 20, retain: time.Hour, batch: 10_000, parked: 10_000,
	}
	if rng.IntN(2) == 0 { // the journal is trimmed during the run
		p.segment, p.retain = 24<<10, time.Duration(rng.IntN(4000))*time.Millisecond
		if rng.IntN(3) == 0 { // and may fill up
			p.journal = 12 * p.segment
		}
	}
	if rng.IntN(3) == 0 {
		p.batch = 1 + rng.IntN(12)
	}
	if rng.IntN(4) == 0 {
		p.parked = 2 + rng.IntN(6)
	}
	// A replica may be behind what is retained, and nothing can help then. The wall
	// clock decides what is, so a jump of it ends retention early.
	if p.retain < time.Hour || p.jump > 0 {
		p.failover = 0
	}
	return p
}

func (p *profile) String() string {
	return strings.TrimSpace(strings.NewReplacer("{", "", "}", "").Replace(fmt.Sprintf("%+v", *p)))
}
