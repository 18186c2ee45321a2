package api

import (
	"bytes"
	"io"

	"sluice.dev/sluice"
)

// cutter cuts a streamed body into chunks. Where it cuts depends on the bytes
// and on constants of the format alone (I2), never on how the bytes arrive nor
// on configured limits:
//
//	A chunk takes whole lines, newlines included, until it has ChunkLinesMax, or
//	the next line would make it longer than ChunkBytesMax. A line that is longer
//	than that by itself is a chunk of its own. Empty lines count.
//
// Invariant: a retry is cut as its original was (TestI2_CutDependsOnBytesOnly).
type cutter struct {
	src      io.Reader
	grow     func(b []byte, taken *int64, want int) ([]byte, error) // as HTTP.grow
	progress func()                                                 // hears that the body brought something
	lineMax  int                                                    // longest line that is held; more is skipped
	carry    []byte                                                 // read, but of a later chunk
	taken    int64                                                  // of the memory, for carry
	lines    int                                                    // given out so far
	since    int                                                    // bytes since the last progress
	eof      bool
}

// readSize is how much room a read gets at least.
const readSize = 16 << 10

// next cuts a chunk into j. io.EOF: there is none left. After any other error
// what was read of the chunk is of no use: how it would have ended is unknown.
func (c *cutter) next(j *job) error {
	c.progress()
	j.first, j.ends = c.lines+1, j.ends[:0]
	if err := c.room(&j.text, &j.taken, len(c.carry)); err != nil {
		return err
	}
	j.text = append(j.text[:0], c.carry...)
	c.carry = c.carry[:0]
	for scanned := 0; ; {
		if whole := c.lineEnds(j, scanned); whole {
			return c.cutAt(j)
		}
		scanned = len(j.text)
		if len(j.ends) == 0 && len(j.text) > max(c.lineMax, sluice.ChunkBytesMax) {
			return c.skipLine(j)
		}
		if c.eof {
			return c.last(j)
		}
		if err := c.read(j); err != nil {
			return err
		}
	}
}

// lineEnds takes the lines that end in j.text[scanned:], and tells whether the
// chunk is whole.
func (c *cutter) lineEnds(j *job, scanned int) bool {
	for {
		i := bytes.IndexByte(j.text[scanned:], '\n')
		if i < 0 {
			// A line that is not over yet may already be too much for this chunk.
			return len(j.ends) > 0 && len(j.text) > sluice.ChunkBytesMax
		}
		scanned += i + 1
		if len(j.ends) > 0 && scanned > sluice.ChunkBytesMax {
			return true
		}
		j.ends = append(j.ends, scanned)
		if len(j.ends) == sluice.ChunkLinesMax || scanned >= sluice.ChunkBytesMax {
			return true
		}
	}
}

// cutAt ends the chunk with its last whole line; the rest is for the next.
func (c *cutter) cutAt(j *job) error {
	end := j.ends[len(j.ends)-1]
	if err := c.keep(j.text[end:]); err != nil {
		return err
	}
	j.text = j.text[:end]
	c.lines += len(j.ends)
	return nil
}

// keep puts bytes away for the next chunk.
func (c *cutter) keep(rest []byte) error {
	if err := c.room(&c.carry, &c.taken, len(rest)); err != nil {
		return err
	}
	c.carry = append(c.carry[:0], rest...)
	return nil
}

// last ends the last chunk; its last line may lack its newline.
func (c *cutter) last(j *job) error {
	end := 0
	if len(j.ends) > 0 {
		end = j.ends[len(j.ends)-1]
	}
	if end < len(j.text) {
		j.ends = append(j.ends, len(j.text))
	}
	if len(j.ends) == 0 {
		return io.EOF
	}
	return c.cutAt(j)
}

// skipLine makes a chunk of a line that is too long to hold: its number only.
func (c *cutter) skipLine(j *job) error {
	j.tooLong = true
	for !c.eof {
		j.text = j.text[:0]
		if err := c.read(j); err != nil {
			return err
		}
		if i := bytes.IndexByte(j.text, '\n'); i >= 0 {
			if err := c.keep(j.text[i+1:]); err != nil {
				return err
			}
			break
		}
	}
	j.text, j.ends = j.text[:0], append(j.ends, 0)
	c.lines++
	return nil
}

// read appends to j.text what the body has next.
func (c *cutter) read(j *job) error {
	if cap(j.text)-len(j.text) < readSize/4 {
		if err := c.room(&j.text, &j.taken, len(j.text)+readSize); err != nil {
			return err
		}
	}
	had := len(j.text)
	n, err := c.src.Read(j.text[had:cap(j.text)])
	j.text = j.text[:had+n]
	c.since += n
	if c.since >= progressBytes || bytes.IndexByte(j.text[had:], '\n') >= 0 {
		c.progress()
		c.since = 0
	}
	if err == io.EOF {
		c.eof = true
		return nil
	}
	if err != nil {
		return bodyError(err)
	}
	return nil
}

// room makes sure that b can hold want bytes.
func (c *cutter) room(b *[]byte, taken *int64, want int) (err error) {
	if want > cap(*b) {
		*b, err = c.grow(*b, taken, want)
	}
	return err
}

// more tells whether another chunk follows the one just cut.
func (c *cutter) more(j *job) (bool, error) {
	if len(c.carry) > 0 {
		return true, nil
	}
	if c.eof {
		return false, nil
	}
	var one [1]byte
	for {
		n, err := c.src.Read(one[:])
		switch {
		case n > 0:
			return true, nil
		case err == io.EOF:
			c.eof = true
			return false, nil
		case err != nil:
			return false, bodyError(err)
		}
	}
}
