package schema

import "testing"

func BenchmarkBuilderText(b *testing.B) {
	s := mustSchema(b, social)
	builder, posts := NewBuilder(s, clock), s.Table([]byte("posts"))
	key, likes, one := []byte("428123"), []byte("likes"), []byte("1")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			builder.Reset(s)
		}
		_ = builder.Begin(posts, key)
		_ = builder.Put(VerbAdd, likes, one)
		if err := builder.End(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBuilderJSON(b *testing.B) {
	s := mustSchema(b, social)
	builder, line := NewBuilder(s, clock), []byte(`{"table":"posts","key":42,"add":{"likes":1}}`)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			builder.Reset(s)
		}
		if err := builder.AddJSON(line); err != nil {
			b.Fatal(err)
		}
	}
}
