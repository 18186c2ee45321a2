package main

import (
	"math/rand/v2"

	"sluice.dev/sluice/bench/rivals/batch"
)

const (
	posts     = 1_000_000
	drivers   = 10_000
	zipf      = 1.1
	hotPost   = 7
	places    = 100_000
	mixLikes  = 85 // of 100 writes of the mix
	mixEvents = 10 // the others are places
)

// workload says what is written. Every caller has a source of its own, so that
// choosing a key costs no lock.
type workload struct {
	name, about string
	callers     int  // 0: as many as the run has
	closedOnly  bool // an open loop of it would say the same
	source      func(*rand.Rand) func() batch.Write
}

func workloads() []workload {
	return []workload{
		{name: "hot", about: "likes of one post", source: likes(func(*rand.Rand) func() uint64 { return func() uint64 { return hotPost } })},
		{name: "zipf", about: "likes of a million posts, Zipf 1.1", source: likes(zipfPosts)},
		{name: "uniform", about: "likes of a million posts, all alike", source: likes(anyPost)},
		{name: "events", about: "rows appended to a log with an index", source: events},
		{name: "mixed", about: "85 % likes (Zipf 1.1), 10 % events, 5 % places of 10,000 drivers", source: mixed},
		{name: "idle", about: "one client alone, likes of a million posts", callers: 1, closedOnly: true, source: likes(anyPost)},
	}
}

func likes(posts func(*rand.Rand) func() uint64) func(*rand.Rand) func() batch.Write {
	return func(r *rand.Rand) func() batch.Write {
		key := posts(r)
		return func() batch.Write { return batch.Write{Kind: batch.Like, Key: key()} }
	}
}

func zipfPosts(r *rand.Rand) func() uint64 { return rand.NewZipf(r, zipf, 1, posts-1).Uint64 }

func anyPost(r *rand.Rand) func() uint64 { return func() uint64 { return r.Uint64N(posts) } }

func events(r *rand.Rand) func() batch.Write {
	return func() batch.Write { return batch.Write{Kind: batch.Event, Key: r.Uint64N(posts), N: r.Uint64N(places)} }
}

func mixed(r *rand.Rand) func() batch.Write {
	post := zipfPosts(r)
	return func() batch.Write {
		switch n := r.IntN(100); {
		case n < mixLikes:
			return batch.Write{Kind: batch.Like, Key: post()}
		case n < mixLikes+mixEvents:
			return batch.Write{Kind: batch.Event, Key: post(), N: r.Uint64N(places)}
		default:
			return batch.Write{Kind: batch.Place, Key: r.Uint64N(drivers), N: r.Uint64N(places)}
		}
	}
}
