package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/cespare/xxhash/v2"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/vfs"
)

// Small files are replaced as a whole: temp file, sync, rename, directory sync
// (J6). A reader sees the old content or the new one, and after the return the
// new one is what every later start sees.

const (
	savedMagic       = "SLUICEFL"
	savedHeaderBytes = 32
	savedSuffix      = ".sav"
	tempSuffix       = ".tmp"

	// savedBytesMax bounds what is read into memory as one small file.
	savedBytesMax = 1 << 30
)

// Names of the journal's own small files.
const (
	identityFile   = "identity" + savedSuffix
	checkpointFile = "checkpoint" + savedSuffix
	epochFile      = "epoch" + savedSuffix
)

// replaceFile makes data durable under name.
func replaceFile(fsys vfs.FS, dir, name string, data []byte) error {
	temp := filepath.Join(dir, name+tempSuffix)
	f, err := fsys.Create(temp)
	if err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	_, err = f.WriteAt(envelope(name, data), 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("save %s: %w", name, err), fsys.Remove(temp))
	}
	if err := fsys.Rename(temp, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("save %s: %w", name, err)
	}
	return nil
}

// envelope puts data behind a header that names the format and the file, so
// that one file copied over another is not read as it.
func envelope(name string, data []byte) []byte {
	b := make([]byte, savedHeaderBytes, savedHeaderBytes+len(data))
	copy(b, savedMagic)
	binary.LittleEndian.PutUint32(b[8:], Format)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(data)))
	binary.LittleEndian.PutUint64(b[24:], savedSum(name, b[:24], data))
	return append(b, data...)
}

func savedSum(name string, header, data []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	d.WriteString(name)
	d.Write(header)
	d.Write(data)
	return d.Sum64()
}

// readFile gives what replaceFile wrote. fs.ErrNotExist: never saved.
// *journal.CorruptError: something else stands there.
func readFile(fsys vfs.FS, dir, name string) ([]byte, error) {
	path := filepath.Join(dir, name)
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size < savedHeaderBytes || size > savedBytesMax {
		return nil, corrupt(path, 0, faultf("a saved file", "%d bytes", size))
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	header, data := b[:savedHeaderBytes], b[savedHeaderBytes:]
	if string(header[:8]) != savedMagic {
		return nil, corrupt(path, 0, faultf("a saved file", "bytes %x", header[:8]))
	}
	if sum, stands := savedSum(name, header[:24], data), binary.LittleEndian.Uint64(header[24:]); sum != stands {
		return nil, corrupt(path, 0, faultf(fmt.Sprintf("checksum %016x", stands), "checksum %016x", sum))
	}
	if format := binary.LittleEndian.Uint32(header[8:]); format > Format {
		return nil, fmt.Errorf("%s: %w", path, newerFormat("file", format))
	}
	return data, nil
}

func corrupt(path string, off int64, bad *fault) *journal.CorruptError {
	return &journal.CorruptError{File: path, Offset: off, Got: bad.got, Want: bad.want}
}

// SaveFile makes data durable beside the segments under a name of small
// letters, digits, - and _, replacing what was there: catalog, state of dedup.
func (j *Journal) SaveFile(name string, data []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	return j.save(name+savedSuffix, data)
}

// save is replaceFile with the journal's sticky error.
func (j *Journal) save(name string, data []byte) error {
	j.saving.Lock()
	defer j.saving.Unlock()
	if err := j.failure(); err != nil {
		return err
	}
	if err := replaceFile(j.opts.FS, j.opts.Dir, name, data); err != nil {
		return j.broken(err)
	}
	return nil
}

// LoadFile gives what SaveFile saved; fs.ErrNotExist when nothing was.
func (j *Journal) LoadFile(name string) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	data, err := readFile(j.opts.FS, j.opts.Dir, name+savedSuffix)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("load %s: %w", name, err)
	}
	return data, err
}

func checkName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"
	if name == "" || strings.Trim(name, letters) != "" {
		return fmt.Errorf("journal: %q cannot name a file: use small letters, digits, - and _", name)
	}
	switch name + savedSuffix {
	case identityFile, checkpointFile, epochFile:
		return fmt.Errorf("journal: %q is the journal's own file: use another name", name)
	}
	return nil
}
