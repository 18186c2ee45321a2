package dedup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"sluice.dev/sluice/internal/vfs"
)

// dir is the folder of a table: every file is written beside its name, synced,
// renamed, and the rename synced. Nothing is ever changed in place.
type dir struct {
	path string
	fs   vfs.FS
}

const (
	manifestName    = "manifest"
	reservationName = "producers-reserved"
	tempSuffix      = ".tmp"
	headFormat      = "sluice %s 1 crc32c=%08x\n"
)

// manifest says which files make up the table. Replacing it is the commit
// point of a checkpoint.
type manifest struct {
	Through      uint64        // commits up to this one are in the files
	Now          time.Duration // journal time
	NextProducer uint64        // ids from here on are new, but for those reserved
	NextFile     uint64        // number in the name of the next file
	Producers    string        `json:",omitempty"` // name of the file of producers
	Files        []fileInfo    // newest first
}

// fileInfo is a file of random keys.
type fileInfo struct {
	Name   string
	Keys   uint64
	Bytes  int64
	Newest time.Duration // journal time, no earlier than of any key in it
}

// write makes a file durable under its name; fill writes its content.
func (d *dir) write(name string, fill func(io.Writer) error) error {
	if err := d.replace(name, fill); err != nil {
		return fmt.Errorf("write %s: %w", d.file(name), err)
	}
	return nil
}

func (d *dir) file(name string) string { return filepath.Join(d.path, name) }

func (d *dir) replace(name string, fill func(io.Writer) error) error {
	temp := d.file(name + tempSuffix)
	f, err := d.fs.Create(temp)
	if err != nil {
		return err
	}
	if err = fill(io.NewOffsetWriter(f, 0)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.fs.Rename(temp, d.file(name)); err != nil {
		return err
	}
	return d.fs.SyncDir(d.path)
}

// remove deletes a file that the manifest does not name any more. That it comes
// back after a crash does no harm: the next start removes it.
func (d *dir) remove(name string) error { return d.fs.Remove(d.file(name)) }

// open opens a sorted file.
func (d *dir) open(name string) (*sorted, vfs.File, error) {
	path := d.file(name)
	f, err := d.fs.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("%w; it holds remembered identities: restore it from a copy", err)
	}
	size, err := f.Size()
	if err == nil {
		var s *sorted
		if s, err = openSorted(path, f, size); err == nil {
			return s, f, nil
		}
	}
	return nil, nil, errors.Join(err, f.Close())
}

// clean removes what a crash left: files that keep does not name.
func (d *dir) clean(keep map[string]bool) error {
	names, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		ours := strings.HasPrefix(name, keysPrefix) || strings.HasPrefix(name, producersPrefix) || strings.HasSuffix(name, tempSuffix)
		if ours && name != reservationName && !keep[name] {
			if err := d.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeValue and readValue keep a small value as JSON that people can read,
// below a line that names the format and the checksum.
func (d *dir) writeValue(name string, value any) error {
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	return d.write(name, func(w io.Writer) error {
		head := fmt.Sprintf(headFormat, name, crc32.Checksum(text, castagnoli))
		_, err := w.Write(append([]byte(head), text...))
		return err
	})
}

// readValue leaves value as it is when there is no such file.
func (d *dir) readValue(name string, value any) error {
	path := d.file(name)
	data, err := d.read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	head, text, _ := bytes.Cut(data, []byte("\n"))
	if want := fmt.Sprintf(headFormat, name, crc32.Checksum(text, castagnoli)); string(head)+"\n" != want {
		var version int
		if n, _ := fmt.Sscanf(string(head), "sluice "+name+" %d", &version); n == 1 && version > 1 {
			return fmt.Errorf("%s has version %d: %w", path, version, ErrNewerFormat)
		}
		return &DamagedError{File: path, Got: fmt.Sprintf("%.60q", head), Want: fmt.Sprintf("%q", strings.TrimSpace(want))}
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func (d *dir) read(path string) ([]byte, error) {
	f, err := d.fs.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	data := make([]byte, size)
	if err == nil {
		_, err = io.ReadFull(io.NewSectionReader(f, 0, size), data)
	}
	return data, errors.Join(err, f.Close())
}

func (d *dir) writeReservation(limit uint64) error { return d.writeValue(reservationName, limit) }

func (d *dir) readReservation() (uint64, error) {
	limit := uint64(1)
	err := d.readValue(reservationName, &limit)
	return limit, err
}
