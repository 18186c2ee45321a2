package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// faultsFile is where lines go that cannot be used. It is made when there is
// the first one.
type faultsFile struct {
	path string
	own  bool // the path is Sluice's choice: what an earlier load left there goes
	f    *os.File
	size int64
}

// open goes on behind the first size bytes: what an interrupted run wrote
// behind them is of lines that will be judged again.
func (w *faultsFile) open(size int64) error {
	if size == 0 {
		if !w.own {
			return nil
		}
		if err := os.Remove(w.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("begin the faults file anew: %w; --faults names another", err)
		}
		return nil
	}
	f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	w.f = f
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w.size = min(size, info.Size())
	if err := f.Truncate(w.size); err != nil {
		return err
	}
	_, err = f.Seek(w.size, 0)
	return err
}

func (w *faultsFile) add(faults []loadFault) error {
	if len(faults) == 0 {
		return nil
	}
	if w.f == nil {
		f, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("write the faults file: %w; --faults names another", err)
		}
		w.f = f
	}
	var text []byte
	for _, fault := range faults {
		line, err := json.Marshal(fault)
		if err != nil {
			return err
		}
		text = append(append(text, line...), '\n')
	}
	n, err := w.f.Write(text)
	w.size += int64(n)
	return err
}

func (w *faultsFile) sync() error {
	if w.f == nil {
		return nil
	}
	return w.f.Sync()
}

func (w *faultsFile) close() error {
	if w.f == nil {
		return nil
	}
	return w.f.Close()
}
