package schema

import (
	"testing"
	"time"

	"sluice.dev/sluice"
)

func handSchema() *Schema {
	posts := &Table{ID: 1, Name: "posts", Key: []KeyColumn{{Name: "post_id", Type: Type{Kind: sluice.Int64}}}, PartitionBy: []int{0}}
	g := &Group{ID: 1, Name: "metrics", Columns: []*Column{
		{ID: 1, Name: "likes", Type: Type{Kind: sluice.Int64}, Merge: Sum},
		{ID: 2, Name: "viewers", Type: Type{Kind: sluice.Text}, Merge: Unique},
		{ID: 3, Name: "content", Type: Type{Kind: sluice.Text}},
	}}
	posts.Groups = []*Group{g}
	posts.link()
	return &Schema{Tables: map[string]*Table{"posts": posts}, Limits: Limits{ValueBytesMax: 1 << 20, SkewMax: time.Minute}}
}

func BenchmarkBuilderText(b *testing.B) {
	s := handSchema()
	bl := NewBuilder(s, time.Now)
	t := s.Table([]byte("posts"))
	key, col, one := []byte("428123"), []byte("likes"), []byte("1")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			bl.Reset(s)
		}
		_ = bl.Begin(t, key)
		_ = bl.Put(VerbAdd, col, one)
		if err := bl.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuilderJSON(b *testing.B) {
	s := handSchema()
	bl := NewBuilder(s, time.Now)
	line := []byte(`{"table":"posts","key":42,"add":{"likes":1}}`)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			bl.Reset(s)
		}
		if err := bl.AddJSON(line); err != nil {
			b.Fatal(err)
		}
	}
}
