package schema

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// ShortShard is the name of the one shard of a store written in short form.
const ShortShard = "main"

// drivers are the schemes of a store's URL, and the driver of each.
var drivers = map[string]string{"sqlite": "sqlite", "postgres": "postgres", "postgresql": "postgres", "mem": "mem"}

const urlCure = "write sqlite:app.db, postgres://user:${PASSWORD}@host/database or mem:"

// Redacted is the shard's URL without its password.
func (s Shard) Redacted() string {
	u, err := url.Parse(s.URL)
	if err != nil {
		scheme, _, _ := strings.Cut(s.URL, ":")
		return scheme + ":..."
	}
	if q := u.Query(); q.Has("password") || q.Has("sslpassword") {
		for _, secret := range []string{"password", "sslpassword"} {
			if q.Has(secret) {
				q.Set(secret, "xxxxx")
			}
		}
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

func (c *Config) readStores(o *object) {
	c.Stores = map[string]*Store{}
	for _, name := range o.names {
		n := o.get(name)
		s := &Store{Name: name, SynchronousCommit: true, ConnsMax: 8, BatchRowsMax: 10_000, BatchBytesMax: 8 * mib,
			BatchTimeMax: 2 * time.Second, LockTimeout: 200 * time.Millisecond, ParkedMax: 10_000, RejectsMax: 10_000,
			FKWait: 30 * time.Second, at: o.at(name)}
		checkName(&o.r.faults, s.at, "store", name)
		c.Stores[name] = s
		if follow(n).Kind == yaml.ScalarNode {
			c.readShard(o.r, s, ShortShard, n)
			continue
		}
		c.readStore(o.r.object(n, o.member(name)), s)
	}
	c.checkShards(&o.r.faults)
}

func (c *Config) readStore(o *object, s *Store) {
	if n := o.get("url"); n != nil {
		c.readShard(o.r, s, ShortShard, n)
		if o.has("shards") {
			o.r.add(o.at("shards"), "keep one of them", "%s has both url and shards", o.path)
		}
	}
	shards := o.object("shards")
	for _, name := range shards.names {
		checkName(&o.r.faults, shards.at(name), "shard", name)
		c.readShard(o.r, s, name, shards.get(name))
	}
	if len(s.Shards) == 0 && !o.has("url") && len(shards.names) == 0 && o.isMapping() {
		o.r.add(o.at("shards"), "add `shards: {a: URL}`, or `url: URL` when there is one", "%s has no shards", o.path)
	}
	slices.SortFunc(s.Shards, func(a, b Shard) int { return strings.Compare(a.Name, b.Name) })
	o.choice("ddl", &s.DDL, "auto", "print", "off")
	o.boolean("synchronous_commit", &s.SynchronousCommit)
	o.count("max_conns", span{1, 10_000}, &s.ConnsMax)
	o.count("batch_rows", span{1, 1_000_000}, &s.BatchRowsMax)
	o.sizeInt("batch_bytes", span{kib, 256 * mib}, &s.BatchBytesMax)
	o.duration("batch_time", span{10 * ms, 60 * sec}, &s.BatchTimeMax)
	o.duration("lock_timeout", span{ms, 60 * sec}, &s.LockTimeout)
	o.count("parked_max", span{1, 1_000_000}, &s.ParkedMax)
	o.count("rejects_max", span{1, 10_000_000}, &s.RejectsMax)
	o.duration("fk_wait", span{0, day}, &s.FKWait)
	o.boolean("allow_duplicates", &s.AllowDups)
	o.done()
}

// readShard reads the URL of one shard. Faults never show it: it may hold a password.
func (c *Config) readShard(r *reader, s *Store, name string, n *yaml.Node) {
	path := "stores." + s.Name + " (shard " + name + ")"
	text, ok := r.scalar(n, path)
	if !ok {
		return
	}
	scheme, rest, ok := strings.Cut(text, ":")
	driver := drivers[scheme]
	switch {
	case !ok || scheme == "":
		r.add(at(n), urlCure, "the URL of %s does not begin with a driver", path)
		return
	case driver == "":
		known := []string{"sqlite", "postgres", "mem"}
		r.add(at(n), oneOf(scheme, known), "%s: there is no driver of that name", path)
		return
	}
	switch driver {
	case "sqlite":
		if text, ok = c.sqliteURL(rest); !ok {
			r.add(at(n), "write sqlite:app.db or sqlite:/data/app.db, without options; mem: keeps nothing", "the URL of %s names no file", path)
			return
		}
	case "postgres":
		if u, err := url.Parse(text); err != nil || !strings.HasPrefix(rest, "//") || u.Fragment != "" { // the error of url.Parse shows the URL
			r.add(at(n), "write postgres://user:${PASSWORD}@host:5432/database, with special characters as %XX", "the URL of %s is not valid", path)
			return
		}
	}
	if s.Driver != "" && s.Driver != driver {
		r.add(at(n), "make it two stores", "%s has shards of %s and of %s", "stores."+s.Name, s.Driver, driver)
		return
	}
	s.Driver = driver
	s.Shards = append(s.Shards, Shard{Name: name, URL: text})
}

// sqliteURL makes the path of a SQLite file relative to the config's folder.
func (c *Config) sqliteURL(rest string) (string, bool) {
	if after, ok := strings.CutPrefix(rest, "//"); ok {
		rest = after // sqlite:///data/app.db
	}
	if rest == "" || strings.ContainsAny(rest, "?#\x00") || strings.Contains(rest, ":memory:") || strings.HasSuffix(rest, "/") {
		return "", false
	}
	return "sqlite:" + filepath.Clean(c.path(rest)), true
}

// checkShards refuses two names for one database (S6).
func (c *Config) checkShards(f *faults) {
	first := map[string]string{}
	for _, s := range c.sortedStores() {
		for _, shard := range s.Shards {
			if s.Driver == "mem" {
				continue // each is its own
			}
			name := s.Name + "." + shard.Name
			if other, ok := first[shard.URL]; ok {
				f.add(s.at, "give each shard a database of its own", "shards %s and %s are one database", other, name)
			}
			first[shard.URL] = name
		}
	}
}

func (c *Config) sortedStores() []*Store {
	var out []*Store
	for _, s := range c.Stores {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Store) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (c *Config) storeNames() []string {
	var out []string
	for name := range c.Stores {
		out = append(out, name)
	}
	return out
}
