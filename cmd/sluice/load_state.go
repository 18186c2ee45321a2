package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const loadStateVersion = 1

// loadState is what a load must remember so that it can be interrupted at any
// moment and never counts twice. It lies beside the file that is loaded.
//
// Chunks are numbered under one producer (PROTOCOL I3), one is in flight. The
// server knows a repeated chunk by number and bytes, so going on means: cut the
// file from Offset again under the numbers from Next on.
//
// Invariant: the lowest number that the server is told to remember is never
// above Next of a state that was synced. Otherwise the server could forget a
// chunk that an older state sends again. (TestLoad_InterruptedAnywhere)
type loadState struct {
	Version  int    `json:"version"`
	File     string `json:"file"`     // fingerprint of the content
	Template string `json:"template"` // hash of the template's text, "" without
	Journal  string `json:"journal"`  // of the server: numbers of another journal mean nothing to it
	Producer uint64 `json:"producer"`

	Next   uint64   `json:"next"`   // number of the first chunk whose outcome is not in the counts below
	Offset int64    `json:"offset"` // where chunk Next begins in the (decompressed) text
	Line   int64    `json:"line"`   // lines before Offset
	Header []string `json:"header,omitempty"`
	// Again is chunk Next when it is not cut from the file: writes that were
	// refused for a while.
	Again []pendingWrite `json:"again,omitempty"`

	Accepted   int64     `json:"accepted"`
	Refused    int64     `json:"refused"`
	FaultBytes int64     `json:"fault_bytes"` // length of the faults file at Next
	Done       time.Time `json:"done,omitzero"`

	path string // "": not kept (standard input)
}

// pendingWrite is one write and the line of the input it comes from. The write
// is kept as text: as JSON inside JSON it could come back with other bytes.
type pendingWrite struct {
	Line  int64  `json:"line"`
	Write string `json:"write"`
}

// readLoadState reads the state of an earlier run; nil when there is none.
func readLoadState(path string) (*loadState, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := &loadState{path: path}
	if err := json.Unmarshal(text, st); err != nil {
		return nil, fmt.Errorf("%s: %w; --restart begins anew, and counts again what was loaded before", path, err)
	}
	if st.Version != loadStateVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows %d; finish the load with the program that began it", path, st.Version, loadStateVersion)
	}
	return st, nil
}

// fits tells whether the state belongs to this file and template.
func (s *loadState) fits(file, template string) error {
	switch {
	case s.File != file:
		return fmt.Errorf("the file is not the one that %s was written for; give it another name, or --restart to load all of it", s.path)
	case s.Template != template:
		return fmt.Errorf("the template is not the one that this load began with (%s); bring it back, or --restart to load all of the file again", s.path)
	default:
		return nil
	}
}

// save replaces the state on disk. It is synced: an older state after a power
// cut would break the invariant.
func (s *loadState) save() error {
	if s.path == "" {
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	temp := s.path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keep the state of the load: %w; --state names a place that can be written", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(temp, s.path)
	}
	if err != nil {
		return fmt.Errorf("keep the state of the load: %w", err)
	}
	return syncDir(filepath.Dir(s.path))
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
