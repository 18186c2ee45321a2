package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sluice.dev/sluice/client"
)

// TestDemo runs the real thing: this test binary as the server process, killed
// with -9 in the middle.
func TestDemo(t *testing.T) {
	t.Setenv(runsMain, "1")
	t.Setenv("TMPDIR", t.TempDir())
	r := run(t, "demo", "--seconds", "0.5", "--connections", "3", "--json")
	if r.code != exitDone {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	var got demoResult
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Accepted == 0 || got.Lost+got.Doubled+got.Wrong != 0 || got.RecoverySeconds <= 0 || got.FoldRatio <= 1 {
		t.Errorf("%+v", got)
	}
	if left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "sluice-demo-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestDemo_KeepsTheFolderAndSaysHowToLook(t *testing.T) {
	t.Setenv(runsMain, "1")
	t.Setenv("TMPDIR", t.TempDir())
	r := run(t, "demo", "--seconds", "0.2", "--keep")
	r.wants(t, exitDone, "killed the server with kill -9", "lost 0, doubled 0", "kept in ", "sqlite3 ")
	left, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "sluice-demo-*", "sluice.yaml"))
	if len(left) != 1 {
		t.Fatalf("kept %v", left)
	}
	run(t, "check", "-c", left[0]).wants(t, exitDone, "no faults")
	run(t, "journal", "verify", "-c", left[0]).wants(t, exitDone, "whole")
}

// The demo must notice what it claims is not there.
func TestDemo_NoticesEveryDifference(t *testing.T) {
	totals := newDemoTotals()
	var count atomic.Int64
	w := newDemoWorker(nil, 0, 1, &count)
	for range 20 {
		w.fill()
		w.settle(&client.Accepted{Accepted: demoChunkLines})
	}
	totals.add(w.totals)
	whole := demoDatabase(t, totals)
	for _, c := range []struct {
		name, defect  string
		lost, doubled int64
		wrong         bool
	}{
		{name: "nothing"},
		{name: "a like is lost", defect: "UPDATE posts_metrics SET likes = likes - 1 WHERE post_id = 0", lost: 1},
		{name: "views are doubled", defect: "UPDATE posts_metrics SET views = views + 3 WHERE post_id = 1", doubled: 3},
		{name: "a loss and a double in sum 0", defect: "UPDATE posts_metrics SET likes = likes + iif(post_id = 0, 1, -1) WHERE post_id IN (0, 1)", lost: 1, doubled: 1},
		{name: "a comment is lost", defect: "DELETE FROM posts_comments WHERE rowid = 1", lost: 1},
		{name: "a comment is doubled", defect: "INSERT INTO posts_comments SELECT * FROM posts_comments LIMIT 1", doubled: 1},
		{name: "a comment comes from nowhere", defect: "UPDATE posts_comments SET comment_id = 'x' WHERE rowid = 1", lost: 1, wrong: true},
		{name: "an edit is stale", defect: "UPDATE posts_content SET content = 'old' WHERE rowid = 1", wrong: true},
		{name: "a driver is elsewhere", defect: "UPDATE driver_locations SET lat = lat + 1 WHERE rowid = 1", wrong: true},
		{name: "a driver is missing", defect: "DELETE FROM driver_locations WHERE rowid = 1", lost: 1},
		{name: "viewers were not counted", defect: "UPDATE posts_metrics SET viewers = viewers / 2 WHERE post_id = 0", wrong: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := copyWith(t, whole, c.defect)
			checks, err := verifyDemo(context.Background(), file, totals)
			if err != nil {
				t.Fatal(err)
			}
			var lost, doubled, wrong int64
			for _, check := range checks {
				lost, doubled, wrong = lost+check.Lost, doubled+check.Doubled, wrong+check.Wrong
			}
			if lost != c.lost || doubled != c.doubled || (wrong > 0) != c.wrong {
				t.Errorf("lost %d, doubled %d, wrong %d: %+v", lost, doubled, wrong, checks)
			}
		})
	}
}

// copyWith copies a database and puts a defect into the copy.
func copyWith(t *testing.T, file, defect string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "demo.db")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	execSQL(t, file, defect)
	return file
}

func execSQL(t *testing.T, file, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatal(err)
	}
}

// demoDatabase writes the totals as the tables of the demo.
func demoDatabase(t *testing.T, totals *demoTotals) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "demo.db")
	var s strings.Builder
	s.WriteString("BEGIN; CREATE TABLE posts_metrics (post_id, likes, views, viewers); CREATE TABLE posts_content (post_id, content);" +
		"CREATE TABLE posts_comments (comment_id); CREATE TABLE driver_locations (driver_id, lat, lon, at);")
	for post := range demoPosts {
		viewers := 0
		for _, word := range totals.viewers[post] {
			viewers += bits.OnesCount64(word)
		}
		fmt.Fprintf(&s, "INSERT INTO posts_metrics VALUES (%d, %d, %d, %d);", post, totals.likes[post], totals.views[post], viewers)
		if totals.content[post] != "" {
			fmt.Fprintf(&s, "INSERT INTO posts_content VALUES (%d, '%s');", post, totals.content[post])
		}
	}
	for id := range totals.comments {
		fmt.Fprintf(&s, "INSERT INTO posts_comments VALUES ('%s');", id)
	}
	for id, at := range totals.locations {
		fmt.Fprintf(&s, "INSERT INTO driver_locations VALUES ('%s', %v, %v, '%s');", id, at.lat, at.lon, at.at)
	}
	execSQL(t, file, s.String()+"COMMIT")
	return file
}
