package main

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/bits"
	"net/url"

	_ "modernc.org/sqlite" // the demo reads the database by itself, not through Sluice
)

// demoCheck is one comparison of the database with what was accepted.
type demoCheck struct {
	What    string `json:"what"`
	Sent    int64  `json:"sent"`
	Found   int64  `json:"found"`
	Lost    int64  `json:"lost"`
	Doubled int64  `json:"doubled"`
	Wrong   int64  `json:"wrong"` // values that differ where there is no more or less
	Note    string `json:"note,omitempty"`
}

func (c *demoCheck) ok() bool { return c.Lost == 0 && c.Doubled == 0 && c.Wrong == 0 }

// compare adds one pair of counts.
func (c *demoCheck) compare(sent, found int64) {
	c.Sent += sent
	c.Found += found
	c.Lost += max(sent-found, 0)
	c.Doubled += max(found-sent, 0)
}

// Bounds of the viewers' estimate: a HyperLogLog with 2^14 registers has a
// standard error of 0.81 %. Among a thousand posts five times that is passed
// once in a thousand demos.
const (
	viewersErrorMax = 5 * 0.0081
	viewersFewMax   = 3 // on small numbers a step of one is more than that
)

// verifyDemo opens the database file and compares every total.
func verifyDemo(ctx context.Context, file string, t *demoTotals) ([]demoCheck, error) {
	// Not mode=ro: the last writer may have left a WAL that must be read too.
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?_pragma=query_only(1)&_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	v := &demoVerifier{ctx: ctx, db: db, totals: t}
	var checks []demoCheck
	for _, part := range []func() ([]demoCheck, error){v.metrics, v.comments, v.content, v.locations} {
		some, err := part()
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		checks = append(checks, some...)
	}
	return checks, nil
}

type demoVerifier struct {
	ctx    context.Context
	db     *sql.DB
	totals *demoTotals
}

// each calls fn for every row.
func (v *demoVerifier) each(query string, fn func(*sql.Rows) error) error {
	rows, err := v.db.QueryContext(v.ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (v *demoVerifier) metrics() ([]demoCheck, error) {
	likes, views, viewers := demoCheck{What: "likes, post by post"}, demoCheck{What: "views, post by post"}, demoCheck{What: "distinct viewers"}
	var found [demoPosts]struct{ likes, views, viewers int64 }
	var strange int64
	err := v.each(`SELECT post_id, coalesce(likes,0), coalesce(views,0), coalesce(viewers,0) FROM posts_metrics`, func(r *sql.Rows) error {
		var post, l, w, u int64
		if err := r.Scan(&post, &l, &w, &u); err != nil {
			return err
		}
		if post < 0 || post >= demoPosts {
			strange++
			return nil
		}
		found[post].likes, found[post].views, found[post].viewers = l, w, u
		return nil
	})
	worst := 0.0
	for post := range demoPosts {
		likes.compare(v.totals.likes[post], found[post].likes)
		views.compare(v.totals.views[post], found[post].views)
		sent := int64(0)
		for _, word := range v.totals.viewers[post] {
			sent += int64(bits.OnesCount64(word))
		}
		got := found[post].viewers
		viewers.Sent, viewers.Found = viewers.Sent+sent, viewers.Found+got
		off := math.Abs(float64(got - sent))
		if off > max(viewersFewMax, viewersErrorMax*float64(sent)) {
			viewers.Wrong++
		}
		if off > viewersFewMax {
			worst = max(worst, off/float64(sent))
		}
	}
	likes.Wrong = strange
	viewers.Note = fmt.Sprintf("an estimate, at worst %.1f %% off", 100*worst)
	if viewers.Wrong > 0 {
		viewers.Note = fmt.Sprintf("%d posts are more than %.0f %% off", viewers.Wrong, 100*viewersErrorMax)
	}
	return []demoCheck{likes, views, viewers}, err
}

func (v *demoVerifier) comments() ([]demoCheck, error) {
	c := demoCheck{What: "comments, one by one", Sent: int64(len(v.totals.comments))}
	times := make(map[string]int, len(v.totals.comments))
	err := v.each(`SELECT comment_id FROM posts_comments`, func(r *sql.Rows) error {
		var id string
		if err := r.Scan(&id); err != nil {
			return err
		}
		c.Found++
		if times[id]++; times[id] > 1 {
			c.Doubled++
		}
		if _, ok := v.totals.comments[id]; !ok {
			c.Wrong++
		}
		return nil
	})
	for id := range v.totals.comments {
		if times[id] == 0 {
			c.Lost++
		}
	}
	return []demoCheck{c}, err
}

func (v *demoVerifier) content() ([]demoCheck, error) {
	c := demoCheck{What: "contents, the last edit"}
	var found [demoPosts]string
	err := v.each(`SELECT post_id, coalesce(content,'') FROM posts_content`, func(r *sql.Rows) error {
		var post int64
		var text string
		if err := r.Scan(&post, &text); err != nil {
			return err
		}
		if post < 0 || post >= demoPosts {
			c.Wrong++
			return nil
		}
		c.Found++
		found[post] = text
		return nil
	})
	for post, text := range v.totals.content {
		if text != "" {
			c.Sent++
		}
		switch {
		case text != "" && found[post] == "":
			c.Lost++
		case text != found[post]:
			c.Wrong++
		}
	}
	return []demoCheck{c}, err
}

func (v *demoVerifier) locations() ([]demoCheck, error) {
	c := demoCheck{What: "locations, the latest", Sent: int64(len(v.totals.locations))}
	found := map[string]location{}
	err := v.each(`SELECT driver_id, lat, lon, CAST(at AS TEXT) FROM driver_locations`, func(r *sql.Rows) error {
		var id string
		var at location
		if err := r.Scan(&id, &at.lat, &at.lon, &at.at); err != nil {
			return err
		}
		found[id] = at
		return nil
	})
	c.Found = int64(len(found))
	for id, sent := range v.totals.locations {
		got, ok := found[id]
		switch {
		case !ok:
			c.Lost++
		case got != sent:
			c.Wrong++
		}
	}
	for id := range found {
		if _, ok := v.totals.locations[id]; !ok {
			c.Wrong++
		}
	}
	return []demoCheck{c}, err
}
