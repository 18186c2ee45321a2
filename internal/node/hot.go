package node

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/observe"
	"sluice.dev/sluice/internal/schema"
)

// hotEvery is how often hot keys are told of; with what hotkey promises, each is
// told of within a second.
const hotEvery = 50 * time.Millisecond

// Hot lists the keys that are hot or cool down, by group, hottest first.
func (n *Node) Hot() []sluice.HotKey {
	s, now, wall := n.acceptor.Schema(), n.clock.now(), time.Now()
	var out []sluice.HotKey
	for _, k := range n.hot.Keys(now) {
		g := s.Group(k.Group)
		if g == nil {
			continue // gone since; its name is, too
		}
		h := sluice.HotKey{Table: g.Table.Name, Group: g.Name, Key: g.Table.AppendKeyJSON(nil, k.Key), State: "hot", PerSecond: k.PerSecond(),
			Share: k.Share(), ShareError: k.ShareError(), Since: wall.Add(-time.Duration(now-k.Since) * time.Microsecond).UTC()}
		if k.Cooling {
			h.State = "cooling"
		}
		h.Rule, h.Detail = hotRule(g)
		out = append(out, h)
	}
	return out
}

// hotRule says what happens to many writes to one key of a group.
func hotRule(g *schema.Group) (rule, detail string) {
	if g.Events {
		return "batched", "each event is a row: written in batches, never folded"
	}
	sets := g.LatestBy != nil || slices.ContainsFunc(g.Live(), func(c *schema.Column) bool { return c.Merge == schema.Set })
	merges := g.LatestBy == nil && slices.ContainsFunc(g.Live(), func(c *schema.Column) bool { return c.Merge != schema.Set })
	switch {
	case g.LatestBy != nil:
		rule, detail = "last", "folds to the row with the highest "+g.LatestBy.Name
	case !merges:
		rule, detail = "last", "folds to the last"
	case !sets:
		rule, detail = "folded", "folds"
	default:
		rule, detail = "folded", "folds, set columns to the last"
	}
	if g.CanReject() && sets {
		// S10: a refused row takes no other with it.
		return rule, fmt.Sprintf("%s: one row update per flush (%s); the journal keeps each set apart, since the database may refuse it", detail, g.Flush)
	}
	return rule, fmt.Sprintf("%s: one entry per commit, one row update per flush (%s)", detail, g.Flush)
}

// tellHot logs which keys became hot or cool.
func (n *Node) tellHot(context.Context) error {
	for _, c := range n.hot.Step(n.clock.now()) {
		g := n.acceptor.Schema().Group(c.Group)
		if g == nil {
			continue
		}
		key := string(g.Table.AppendKeyJSON(nil, c.Key.Key))
		if !c.Hot {
			n.emit(observe.EventCool, "table", g.Table.Name, "group", g.Name, "key", key)
			continue
		}
		_, detail := hotRule(g)
		n.emit(observe.EventHot, "table", g.Table.Name, "group", g.Name, "key", key, "writes_per_s", int(c.PerSecond()), "share", c.Share(), "done", detail)
	}
	return nil
}

func (n *Node) hotSamples(yield func(observe.Sample) bool) {
	type top struct {
		keys  int
		share float64
	}
	groups := map[sluice.GroupID]top{}
	for _, k := range n.hot.Keys(n.clock.now()) {
		t := groups[k.Group]
		groups[k.Group] = top{t.keys + 1, max(t.share, k.Share())}
	}
	for _, g := range n.acceptor.Schema().Groups() {
		t := groups[g.ID]
		yield(observe.HotKeys.Of(float64(t.keys), g.Table.Name, g.Name))
		yield(observe.HotShare.Of(t.share, g.Table.Name, g.Name))
	}
}
