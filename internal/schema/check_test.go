package schema

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestCheck runs the scripts of testdata/check:
//
//	check [env=(NAME=value,...)]   faults of the config, or ok
//	promises                       what the config promises
//	show                           settings as they were understood
func TestCheck(t *testing.T) {
	datadriven.Walk(t, "testdata/check", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			env := map[string]string{}
			for _, arg := range d.CmdArgs {
				for _, pair := range arg.Vals {
					name, value, _ := strings.Cut(pair, "=")
					env[name] = value
				}
			}
			c, faults := Parse("conf/sluice.yaml", []byte(d.Input), func(name string) (string, bool) {
				v, ok := env[name]
				return v, ok
			})
			if len(faults) > 0 {
				return faults.Error()
			}
			switch d.Cmd {
			case "check":
				return "ok"
			case "promises":
				var b strings.Builder
				for _, p := range c.Promises() {
					b.WriteString(p.String())
				}
				for _, n := range c.Notes() {
					b.WriteString(n + "\n")
				}
				return b.String()
			case "show":
				return show(c)
			}
			t.Fatalf("%s: no command %s", d.Pos, d.Cmd)
			return ""
		})
	})
}

func show(c *Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen %+v\njournal %+v\nidempotency %+v\n", c.Listen, c.Journal, c.Idempotency)
	for _, s := range c.sortedStores() {
		fmt.Fprintf(&b, "store %s %s", s.Name, s.Driver)
		for _, shard := range s.Shards {
			fmt.Fprintf(&b, " %s=%s", shard.Name, shard.Redacted())
		}
		fmt.Fprintf(&b, " ddl=%s sync=%v conns=%d rows=%d bytes=%d time=%s lock=%s parked=%d rejects=%d fk=%s dups=%v\n", s.DDL, s.SynchronousCommit,
			s.ConnsMax, s.BatchRowsMax, s.BatchBytesMax, s.BatchTimeMax, s.LockTimeout, s.ParkedMax, s.RejectsMax, s.FKWait, s.AllowDups)
	}
	var names []string
	for name := range c.Clients {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "client %+v\n", *c.Clients[name])
	}
	for _, t := range c.Tables {
		for _, g := range t.Groups {
			fmt.Fprintf(&b, "group %s store=%s physical=%s events=%v flush=%s priority=%s overload=%v", g.FullName(), g.Store, g.Physical, g.Events, g.Flush, g.Priority, g.OnOverload)
			if g.Existing != nil {
				fmt.Fprintf(&b, " existing=%+v", *g.Existing)
			}
			if g.LatestBy != nil {
				fmt.Fprintf(&b, " latest_by=%s", g.LatestBy.Name)
			}
			for _, col := range g.Columns {
				fmt.Fprintf(&b, " %s:%s:%s:%s", col.Name, col.Physical, col.Type, col.Merge)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func TestExampleHasNoFault(t *testing.T) {
	c, faults := Parse("sluice.yaml", Example(), noEnv)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if _, _, faults := c.Resolve(nil); len(faults) > 0 {
		t.Fatal(faults)
	}
	defaults := c.Limits
	if defaults != Defaults() {
		t.Errorf("the example's limits are not the defaults: %+v", defaults)
	}
	bare := mustParse(t, "stores: {local: \"sqlite:app.db\"}\ntables: {t: {key: {id: int64}, columns: {n: int64 sum}}}")
	if c.Journal != bare.Journal || c.Listen != bare.Listen || c.Idempotency != bare.Idempotency {
		t.Errorf("the example says other settings than the defaults:\n%+v\n%+v", c, bare)
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, faults := Load(t.TempDir()+"/none.yaml", noEnv)
	if len(faults) != 1 || !strings.Contains(faults.Error(), "sluice init") {
		t.Errorf("faults: %v", faults)
	}
}

func TestFaultsNeverShowTheEnvironment(t *testing.T) {
	secret := "postgres://app:hunter2@[bad/db"
	text := `
stores: {a: "${S}", b: "pg${S}", c: {shards: {x: "${S}"}, ddl: "${S}", max_conns: "${S}", lock_timeout: "${S}"}}
clients: {w: {token: "${S}", allow: "${S}", tables: "${S}"}}
listen: {http: "${S}"}
tables: {t: {key: {id: "${S}"}, store: "${S}", flush: "${S}", kind: "${S}", latest_by: "${S}", partition_by: "${S}", columns: {n: "int64 ${S}", m: "${S}"}}}
`
	_, faults := Parse("sluice.yaml", []byte(text), func(string) (string, bool) { return secret, true })
	if len(faults) < 10 {
		t.Errorf("only %d faults:\n%v", len(faults), faults)
	}
	if strings.Contains(faults.Error(), "hunter2") {
		t.Errorf("a secret is in the faults:\n%v", faults)
	}
}

func TestRedacted(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://app:hunter2@db:5432/x":                     "postgres://app:xxxxx@db:5432/x",
		"postgres://app@db/x?password=hunter2&sslmode=require": "postgres://app@db/x?password=xxxxx&sslmode=require",
		"sqlite:app.db":            "sqlite:app.db",
		"postgres://app:hunt%zz@x": "postgres:...",
	} {
		if got := (Shard{URL: url}).Redacted(); got != want {
			t.Errorf("Redacted(%q) = %q, want %q", url, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(social))
	f.Add(Example())
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("tables: {t: {key: {a: 1}, columns: {}}}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, faults := Parse("sluice.yaml", text, noEnv)
		if (c == nil) != (len(faults) > 0) {
			t.Fatalf("config %v with faults %v", c, faults)
		}
		if c == nil {
			return
		}
		_, cat, faults := c.Resolve(nil)
		if len(faults) > 0 {
			t.Fatalf("a config without fault does not resolve: %v", faults)
		}
		if _, _, faults := c.Resolve(cat); len(faults) > 0 {
			t.Fatalf("the same config does not resolve a second time: %v", faults)
		}
	})
}
