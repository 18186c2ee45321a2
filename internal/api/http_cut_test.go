package api

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"sluice.dev/sluice"
)

// cutAll cuts a body and gives the lines of each chunk.
func cutAll(t testing.TB, src io.Reader, lineMax int) (chunks [][]string) {
	t.Helper()
	progress := 0
	c := cutter{src: src, lineMax: lineMax, progress: func() { progress++ },
		grow: func(b []byte, _ *int64, want int) ([]byte, error) {
			return append(make([]byte, 0, max(want, 2*cap(b))), b...), nil
		}}
	for first := 1; ; {
		j := &job{}
		err := c.next(j)
		if err == io.EOF {
			return chunks
		}
		if err != nil {
			t.Fatal(err)
		}
		if j.first != first {
			t.Fatalf("chunk %d begins with line %d, want %d", len(chunks), j.first, first)
		}
		first += len(j.ends)
		if j.tooLong {
			chunks = append(chunks, []string{"too long"})
			continue
		}
		var lines []string
		from := 0
		for _, end := range j.ends {
			lines = append(lines, string(j.text[from:end]))
			from = end
		}
		if from != len(j.text) {
			t.Fatalf("chunk %d has %d bytes beyond its last line", len(chunks), len(j.text)-from)
		}
		chunks = append(chunks, lines)
	}
}

// body makes lines with the sizes that matter: around the limits, and nothing.
func randomBody(r *rand.Rand) string {
	sizes := []int{0, 1, 80, 500, 5000, 100_000, sluice.ChunkBytesMax - 2, sluice.ChunkBytesMax - 1, sluice.ChunkBytesMax, sluice.ChunkBytesMax + 1}
	var b strings.Builder
	small := r.IntN(2) == 0
	for range r.IntN(2500) {
		n := sizes[r.IntN(4)]
		if !small && r.IntN(200) == 0 {
			n = sizes[r.IntN(len(sizes))]
		}
		b.WriteString(strings.Repeat("x", n))
		b.WriteByte('\n')
	}
	if r.IntN(2) == 0 {
		b.WriteString("no newline")
	}
	return b.String()
}

// randomReader gives its bytes in pieces of random size.
type randomReader struct {
	from io.Reader
	r    *rand.Rand
}

func (r *randomReader) Read(b []byte) (int, error) {
	return r.from.Read(b[:min(len(b), 1+r.r.IntN(1+r.r.IntN(200_000)))])
}

// A retry is cut as its original was, however its bytes arrive and whatever the
// limits are by then.
func TestI2_CutDependsOnBytesOnly(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		body := randomBody(r)
		want := cutAll(t, strings.NewReader(body), 4<<20)
		if got := strings.Join(slices.Concat(want...), ""); got != body {
			t.Fatalf("seed %d: the chunks are not the body", seed)
		}
		for i, chunk := range want {
			size := len(strings.Join(chunk, ""))
			if len(chunk) > sluice.ChunkLinesMax || size > sluice.ChunkBytesMax && len(chunk) > 1 {
				t.Fatalf("seed %d: chunk %d has %d lines and %d bytes", seed, i, len(chunk), size)
			}
			if i+1 < len(want) && len(chunk) < sluice.ChunkLinesMax && size+len(want[i+1][0]) <= sluice.ChunkBytesMax {
				t.Fatalf("seed %d: chunk %d ended early", seed, i)
			}
		}
		for name, src := range map[string]io.Reader{
			"random": &randomReader{strings.NewReader(body), r}, "half": iotest.HalfReader(strings.NewReader(body)),
			"data with EOF": iotest.DataErrReader(strings.NewReader(body))} {
			if got := cutAll(t, src, 4<<20); !slices.EqualFunc(got, want, slices.Equal) {
				t.Fatalf("seed %d: read as %s it is cut differently", seed, name)
			}
		}
		low := cutAll(t, &randomReader{strings.NewReader(body), r}, 100)
		if len(low) != len(want) {
			t.Fatalf("seed %d: with a low line_bytes there are %d chunks, want %d", seed, len(low), len(want))
		}
		for i := range low {
			if len(low[i]) != len(want[i]) {
				t.Fatalf("seed %d: with a low line_bytes chunk %d has %d lines, want %d", seed, i, len(low[i]), len(want[i]))
			}
		}
	}
}

// A line of any length costs no more memory than the limit.
func TestHTTPCutSkipsLongLines(t *testing.T) {
	long := io.MultiReader(strings.NewReader("a\n"), io.LimitReader(endless{}, 50<<20), strings.NewReader("\nb\n"))
	got := cutAll(t, long, 1000)
	if want := "[[a\n] [too long] [b\n]]"; fmt.Sprint(got) != want {
		t.Fatalf("got %.200q, want %q", fmt.Sprint(got), want)
	}
	if got := cutAll(t, io.LimitReader(endless{}, 3<<20), 1000); fmt.Sprint(got) != "[[too long]]" {
		t.Fatalf("got %.200q", fmt.Sprint(got))
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func FuzzHTTPCut(f *testing.F) {
	f.Add([]byte("a\nb\n\nc"), uint64(1))
	f.Add([]byte("\r\n\n\n"), uint64(2))
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		chunks := cutAll(t, &randomReader{bytes.NewReader(body), rand.New(rand.NewPCG(seed, 2))}, 1<<20)
		if got := strings.Join(slices.Concat(chunks...), ""); got != string(body) {
			t.Fatalf("cut %q gives %q", body, got)
		}
	})
}

// The scanner finds as many elements as a JSON parser, in the same places.
func TestHTTPArrayElements(t *testing.T) {
	for text, want := range map[string]string{
		`[]`: "[]", `[1]`: "[1]", ` [ 1 , "a,]\"" ,{"x":[1,{}]},[[]] ] `: `[1 "a,]\"" {"x":[1,{}]} [[]]]`,
		`[`: "[] !", `[1`: "[] !", `[1,`: "[1] !", `[,]`: "[] !", `[1,]`: "[1] !", `[1]]`: "[1] !", `["`: "[] !", `["\`: "[] !", `[}]`: "[}]", `[{]`: "[] !",
	} {
		var got [][]byte
		s := arrayScanner{text: []byte(strings.TrimSpace(text))[1:]}
		suffix := ""
		for {
			e, err := s.next()
			if err != nil {
				suffix = " !"
			}
			if e == nil || err != nil {
				break
			}
			got = append(got, e)
		}
		if out := fmt.Sprintf("%s", got) + suffix; out != want {
			t.Errorf("%s: got %s, want %s", text, out, want)
		}
	}
}
