package mem_test

import (
	"testing"

	"sluice.dev/sluice/internal/journal"
	"sluice.dev/sluice/internal/journal/journaltest"
	"sluice.dev/sluice/internal/journal/mem"
)

func TestJournal(t *testing.T) {
	again := func(t *testing.T, j journal.Journal) journal.Journal {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		return j.(*mem.Journal).Reopen()
	}
	journaltest.Run(t, journaltest.Harness{
		New:      func(*testing.T) journal.Journal { return mem.New(mem.Options{}) },
		Reopen:   again,
		Crash:    again,
		FailSync: func(t *testing.T, j journal.Journal, err error) { j.(*mem.Journal).Fail(err) },
	})
}
