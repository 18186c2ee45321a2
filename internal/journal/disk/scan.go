package disk

import (
	"errors"
	"fmt"
	"io"

	"sluice.dev/sluice/internal/vfs"
)

// windowBytes is read at once from a segment that is scanned.
const windowBytes = 1 << 20

// window reads a file forward through one buffer.
type window struct {
	file vfs.File
	path string
	size int64
	buf  []byte
	at   int64 // where buf starts
}

func newWindow(f vfs.File, path string) (*window, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return &window{file: f, path: path, size: size}, nil
}

// bytes gives n bytes from off, fewer at the end of the file. They are valid
// until the next call.
func (w *window) bytes(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), max(0, w.size-off)))
	if off < w.at || off+int64(n) > w.at+int64(len(w.buf)) {
		if err := w.fill(off, max(n, windowBytes)); err != nil {
			return nil, err
		}
	}
	from := int(off - w.at)
	return w.buf[from:min(from+n, len(w.buf))], nil
}

func (w *window) fill(off int64, n int) error {
	n = int(min(int64(n), max(0, w.size-off)))
	if cap(w.buf) < n {
		w.buf = make([]byte, n)
	}
	w.buf, w.at = w.buf[:n], off
	read, err := w.file.ReadAt(w.buf, off)
	w.buf = w.buf[:read]
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// record reads and checks the record at off, whatever its number.
func (w *window) record(k *key, off int64) (record, *fault, error) {
	head, err := w.bytes(off, recordHeaderBytes)
	if err != nil {
		return record{}, nil, err
	}
	r, n, bad := k.header(head)
	if bad != nil {
		return r, bad, nil
	}
	if off+recordHeaderBytes+int64(n) > w.size {
		return r, faultf(fmt.Sprintf("at most %d bytes", w.size-off), "commit %d of %d bytes", r.number, n), nil
	}
	whole, err := w.bytes(off, recordHeaderBytes+n)
	if err != nil {
		return r, nil, err
	}
	if len(whole) < recordHeaderBytes+n {
		return r, faultf("a whole commit", "%d bytes", len(whole)), nil
	}
	return r, k.verify(&r, whole[:recordHeaderBytes], whole[recordHeaderBytes:]), nil
}

// zeros says whether nothing was ever written from off to end.
func (w *window) zeros(off, end int64) (bool, error) {
	for off < end {
		b, err := w.bytes(off, int(min(blockBytes, end-off)))
		if err != nil {
			return false, err
		}
		if len(b) == 0 {
			return true, nil
		}
		for _, c := range b {
			if c != 0 {
				return false, nil
			}
		}
		off += int64(len(b))
	}
	return true, nil
}

// position is where a scan stands.
type position struct {
	number uint64 // last commit before off
	chain  uint64
	off    int64
	path   string // of the file that off is in
}

// walk calls each for the records that continue from p and gives the position
// behind the last of them, and what stands there: nil for nothing at all.
func (w *window) walk(k *key, p position, each func(r record, off int64) error) (position, *fault, error) {
	for p.off < w.size {
		r, bad, err := w.record(k, p.off)
		if err != nil {
			return p, nil, err
		}
		if bad == nil {
			bad = r.continues(p.number+1, p.chain)
		}
		if bad != nil {
			return p, w.nothing(p.off, bad), nil
		}
		if err := each(r, p.off); err != nil {
			return p, nil, err
		}
		p = position{r.number, r.chain, p.off + int64(recordBytes(len(r.body))), w.path}
	}
	return p, nil, nil
}

// nothing is nil when the block at off is all zeros, bad otherwise.
func (w *window) nothing(off int64, bad *fault) *fault {
	if empty, err := w.zeros(off, off+blockBytes); err == nil && empty {
		return nil
	}
	return bad
}

// after looks behind off for a valid commit with a number above n. One that is
// there proves that what stands at off was once a durable commit.
func (w *window) after(k *key, off int64, n uint64) (r record, at int64, found bool, err error) {
	for at = off; at < w.size; at += blockBytes {
		r, bad, err := w.record(k, at)
		if err != nil {
			return r, at, false, err
		}
		if bad == nil && r.number > n {
			return r, at, true, nil
		}
	}
	return record{}, 0, false, nil
}
