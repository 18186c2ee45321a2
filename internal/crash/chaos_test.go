package crash_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice.dev/sluice/internal/store/pgtest"
)

var chaosRounds = flag.Int("chaos", 12, "faults of TestR2_Chaos; 200 for a night")

// chaos is the real binary between two proxies, over a real PostgreSQL with a
// replica, and its journal on a small disk of its own where that can be mounted.
type chaos struct {
	t       *testing.T
	rnd     *rand.Rand
	srv     *server
	db      *postgresDB
	toPG    *proxy
	toSrv   *proxy
	journal string
	small   bool // the journal's disk is small enough to be filled
}

// Every fault that a machine and a network have, one after the other, under load
// from clients that keep their own account. What was acknowledged must be there.
func TestR2_Chaos(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("again: go test ./internal/crash -run %s -seed %d -chaos %d", t.Name(), s, *chaosRounds)
	c := newChaos(t, s)
	stop, wait := c.load(s)
	order := c.rnd.Perm(len(faults))
	for i := range *chaosRounds {
		f := faults[order[i%len(order)]]
		time.Sleep(time.Duration(20+c.rnd.IntN(200)) * time.Millisecond) // the moment is the test's random input
		t.Logf("round %d: %s", i, f.name)
		f.do(c)
		if t.Failed() {
			break
		}
	}
	close(stop)
	c.finish(wait())
}

// Fail-over to an asynchronous replica that is behind: the database goes back
// by seconds, rows and cursors together, and the journal leads it on.
func TestS4_FailOverToAReplicaThatIsBehind(t *testing.T) {
	s := rand.Uint64()
	c := newChaos(t, s)
	toPrimary := newProxy(t, fmt.Sprintf("127.0.0.1:%d", c.db.cluster.Port))
	replica := c.db.cluster.Replica(t, toPrimary.port())
	stop, wait := c.load(s)
	time.Sleep(300 * time.Millisecond)
	toPrimary.set(mood{shut: true})
	toPrimary.cut()
	time.Sleep(700 * time.Millisecond) // the replica falls behind by so much
	c.db.cluster.Kill()
	replica.Promote(t)
	c.toPG.move(fmt.Sprintf("127.0.0.1:%d", replica.Port))
	c.db.cluster = replica
	c.db.direct(replica)
	time.Sleep(300 * time.Millisecond)
	close(stop)
	c.finish(wait())
}

func newChaos(t *testing.T, s uint64) *chaos {
	t.Helper()
	db := &postgresDB{cluster: pgtest.Start(t, "wal_level = replica", "max_wal_senders = 4", "wal_keep_size = 256MB")}
	db.shards = []string{db.cluster.NewDatabase(t), db.cluster.NewDatabase(t)}
	db.prepare(t)
	c := &chaos{t: t, rnd: rand.New(rand.NewPCG(s, 2)), db: db}
	c.toPG = newProxy(t, fmt.Sprintf("127.0.0.1:%d", db.cluster.Port))
	db.through(c.toPG.addr())
	c.srv = newServer(t, db)
	c.journal = filepath.Join(filepath.Dir(c.srv.file), "journal")
	c.mountSmall()
	c.srv.start(t)
	c.toSrv = newProxy(t, strings.TrimPrefix(c.srv.url, "http://"))
	return c
}

// mountSmall puts the journal on a disk of 96 MiB, which needs root.
func (c *chaos) mountSmall() {
	if err := os.MkdirAll(c.journal, 0o700); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", c.journal, "tmpfs", 0, "size=96m"); err != nil {
		c.t.Logf("the journal's disk cannot be made small, so it is not filled: %v", err)
		return
	}
	c.small = true
	c.t.Cleanup(func() { _ = unix.Unmount(c.journal, unix.MNT_DETACH) })
}

// load starts the clients; wait gives their accounts once stop is closed.
func (c *chaos) load(s uint64) (stop chan struct{}, wait func() []*account) {
	stop = make(chan struct{})
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Minute)
	accounts := make([]*account, workers)
	var wg sync.WaitGroup
	for i := range accounts {
		accounts[i] = newAccount(i, s)
		wg.Go(func() { accounts[i].work(ctx, c.t, "http://"+c.toSrv.addr(), stop) })
	}
	return stop, func() []*account {
		wg.Wait()
		cancel()
		return accounts
	}
}

func (c *chaos) finish(accounts []*account) {
	if c.t.Failed() {
		return
	}
	cl := c.srv.client(c.t)
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	if err := cl.Drain(ctx, func(uint64) {}); err != nil {
		st, _ := cl.Status(ctx)
		c.t.Fatalf("drain: %v\n%+v", err, st.Streams)
	}
	verify(ctx, c.t, cl, c.db, accounts)
	c.srv.stop(c.t)
}

var faults = []struct {
	name string
	do   func(*chaos)
}{
	{"connections to the database cut", func(c *chaos) { c.toPG.cut() }},
	{"half of a message to or from the database", func(c *chaos) { c.toPG.set(mood{half: true}) }},
	{"database slow", func(c *chaos) { c.during(c.toPG, mood{delay: 30 * time.Millisecond}) }},
	{"database silent, then cut", func(c *chaos) { c.during(c.toPG, mood{hole: true}); c.toPG.cut() }},
	{"clients cut off", func(c *chaos) { c.toSrv.cut() }},
	{"half of a request or an answer", func(c *chaos) { c.toSrv.set(mood{half: true}) }},
	{"server killed with -9", func(c *chaos) { c.srv.kill(c.t); c.srv.start(c.t) }},
	{"server stopped and woken", (*chaos).sigstop},
	{"database killed", func(c *chaos) { c.db.kill(c.t, c.rnd) }},
	{"database and server killed", func(c *chaos) { c.db.cluster.Kill(); c.srv.kill(c.t); c.start(); c.srv.start(c.t) }},
	{"a bit of the journal flipped", (*chaos).flip},
	{"journal's disk full", (*chaos).fill},
}

func (c *chaos) during(p *proxy, m mood) {
	p.set(m)
	time.Sleep(300 * time.Millisecond)
	p.set(mood{})
}

func (c *chaos) start() {
	if err := c.db.cluster.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (c *chaos) sigstop() {
	_ = c.srv.cmd.Process.Signal(syscall.SIGSTOP)
	time.Sleep(400 * time.Millisecond)
	_ = c.srv.cmd.Process.Signal(syscall.SIGCONT)
}

// flip turns one bit of a commit of a killed server. The next start must stop
// with the file and the place, read nothing wrong, and go on once it is undone.
func (c *chaos) flip() {
	c.srv.kill(c.t)
	file, at := c.someWrittenByte()
	turn := func() {
		f, err := os.OpenFile(file, os.O_RDWR, 0)
		if err != nil {
			c.t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, at); err != nil {
			c.t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b, at); err != nil {
			c.t.Fatal(err)
		}
	}
	turn()
	if text, ended := c.srv.startAndFail(c.t); !ended {
		c.t.Errorf("the server started over a flipped bit at %s:%d", filepath.Base(file), at)
	} else if !strings.Contains(text, "damaged") || !strings.Contains(text, filepath.Base(file)) {
		c.t.Errorf("the server does not say where the damage is:\n%s", text)
	}
	turn()
	c.srv.start(c.t)
}

// someWrittenByte picks a byte inside the commits of the newest segment.
func (c *chaos) someWrittenByte() (string, int64) {
	files, _ := filepath.Glob(filepath.Join(c.journal, "*.seg"))
	if len(files) == 0 {
		c.t.Fatal("no segments")
	}
	file := files[len(files)-1]
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	end := len(data)
	for end > 1 && data[end-1] == 0 {
		end--
	}
	// Zeros between commits are padding: a flip there changes nothing that is read.
	at := c.rnd.IntN(end)
	for data[at] == 0 {
		at = (at + 1) % end
	}
	return file, int64(at)
}

// fill leaves no room on the journal's disk for a while. Clients are refused
// and try again; what was acknowledged stays.
func (c *chaos) fill() {
	if !c.small {
		return
	}
	path := filepath.Join(c.journal, "filler")
	f, err := os.Create(path)
	if err != nil {
		return // it is full already
	}
	block := make([]byte, 1<<20)
	for range 200 {
		if _, err := f.Write(block); err != nil {
			break
		}
	}
	f.Close()
	time.Sleep(1500 * time.Millisecond)
	if err := os.Remove(path); err != nil {
		c.t.Error(err)
	}
	select {
	case err := <-c.srv.exited: // it may stop, and then recovers
		c.t.Logf("the server stopped at the full disk: %v", err)
		c.srv.start(c.t)
	default:
	}
}

// through makes the binary reach the databases through a proxy; queries of the
// test go there directly.
func (d *postgresDB) through(addr string) {
	d.proxied = nil
	for _, dsn := range d.shards {
		u, err := url.Parse(dsn)
		if err != nil {
			panic(err)
		}
		u.Host = addr
		d.proxied = append(d.proxied, u.String())
	}
}

// direct makes the queries of the test go to another server.
func (d *postgresDB) direct(c *pgtest.Cluster) {
	for i, dsn := range d.shards {
		u, err := url.Parse(dsn)
		if err != nil {
			panic(err)
		}
		u.Host = fmt.Sprintf("127.0.0.1:%d", c.Port)
		d.shards[i] = u.String()
	}
}
