package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// recordBytesMax bounds one record of an input, as the server bounds a line.
const recordBytesMax = 1 << 20

// input gives the records of a file: lines, or for CSV as many lines as a
// quoted field spans. It knows where it stands, in bytes of the text (not of
// the compressed file) and in lines, so that a load can go on from there.
type input struct {
	name   string
	csv    bool
	comma  byte
	header []string // CSV: names of the fields
	offset int64    // after the record that was read last
	line   int64    // lines read so far

	file *os.File // nil: standard input
	raw  int64    // bytes taken from the file as it lies
	size int64    // of the file as it lies; 0: not known
	r    *bufio.Reader
	text []byte
}

// record is one record. Text is good until the next one is read.
type record struct {
	line  int64 // its first line, from 1
	text  []byte
	fault string // why it cannot be used
}

// openInput opens a file, or stdin for "-". format is ndjson, csv, tsv or "": told by the name.
func openInput(name, format string, stdin io.Reader) (*input, error) {
	in := &input{name: name}
	if err := in.setFormat(format); err != nil {
		return nil, err
	}
	src := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%w; give the path of a file, or - for standard input", err)
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s is a folder; load takes one file, or - for standard input", name)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		in.file, in.size, src = f, info.Size(), f
	}
	in.r = bufio.NewReaderSize(counted{src, &in.raw}, 256<<10)
	if magic, _ := in.r.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in.r)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), in.Close())
		}
		in.r = bufio.NewReaderSize(z, 256<<10)
	}
	return in, nil
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n *int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	*c.n += int64(n)
	return n, err
}

func (in *input) setFormat(format string) error {
	if format == "" {
		format = strings.TrimPrefix(filepath.Ext(strings.TrimSuffix(strings.ToLower(in.name), ".gz")), ".")
	}
	switch format {
	case "csv":
		in.csv, in.comma = true, ','
	case "tsv":
		in.csv, in.comma = true, '\t'
	case "", "ndjson", "jsonl", "json", "txt", "log":
	default:
		if in.name == "-" || strings.Contains(in.name, "."+format) {
			break // an ending that says nothing about the format
		}
		return usage("--format %q is not known; use ndjson, csv or tsv", format)
	}
	return nil
}

// begin reads what stands before the first record.
func (in *input) begin() error {
	if mark, _ := in.r.Peek(3); bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		n, _ := in.r.Discard(3)
		in.offset += int64(n)
	}
	if !in.csv {
		if first, _ := in.r.Peek(1); len(first) == 1 && first[0] == '[' {
			return fmt.Errorf("%s holds one JSON array, load takes one value a line; turn it: jq -c '.[]' %s | sluice load - --template FILE", in.name, in.name)
		}
		return nil
	}
	rec, err := in.next()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is empty; a CSV begins with a line of names", in.name)
	}
	if err != nil {
		return err
	}
	in.header, err = splitCSV(string(rec.text), in.comma)
	if err != nil {
		return fmt.Errorf("%s:%d: %w", in.name, rec.line, err)
	}
	return nil
}

// skip goes to where an earlier run stood. Compressed text has to be read to
// be skipped.
func (in *input) skip(offset, line int64) error {
	n, err := io.CopyN(io.Discard, in.r, offset-in.offset)
	in.offset, in.line = in.offset+n, line
	if err != nil {
		return fmt.Errorf("go on in %s at byte %d: %w", in.name, offset, err)
	}
	return nil
}

// next reads a record; io.EOF when there is none. Empty lines are passed over.
func (in *input) next() (record, error) {
	for {
		rec := record{line: in.line + 1}
		in.text = in.text[:0]
		long, err := in.readLine()
		for err == nil && !long && in.csv && bytes.Count(in.text, []byte{'"'})%2 == 1 {
			long, err = in.readLine()
		}
		if err != nil && !(errors.Is(err, io.EOF) && len(in.text) > 0) {
			return rec, err
		}
		rec.text = bytes.TrimRight(in.text, "\r\n")
		switch {
		case long:
			rec.text, rec.fault = nil, fmt.Sprintf("the record is longer than %d bytes; a quote that is never closed has the same effect", recordBytesMax)
		case len(bytes.TrimSpace(rec.text)) == 0:
			if err != nil {
				return rec, err
			}
			continue
		}
		return rec, nil
	}
}

// readLine appends a line to the record, with its end. Of a record that is too
// long it keeps nothing and reads on to the end of the line.
func (in *input) readLine() (long bool, err error) {
	for {
		part, err := in.r.ReadSlice('\n')
		in.offset += int64(len(part))
		if len(in.text)+len(part) > recordBytesMax {
			long = true
		}
		if !long {
			in.text = append(in.text, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == nil || len(part) > 0 {
			in.line++
		}
		if err != nil && !errors.Is(err, io.EOF) {
			err = fmt.Errorf("read %s after line %d: %w", in.name, in.line, err)
		}
		return long, err
	}
}

// fingerprint names the content of the file: its first MiB and its size.
func (in *input) fingerprint() (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(in.file, 0, 1<<20)); err != nil {
		return "", fmt.Errorf("read %s: %w", in.name, err)
	}
	return fmt.Sprintf("%d:%s", in.size, hex.EncodeToString(h.Sum(nil)[:16])), nil
}

// Close closes the file.
func (in *input) Close() error {
	if in.file == nil {
		return nil
	}
	return in.file.Close()
}
