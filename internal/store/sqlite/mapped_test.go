package sqlite

import (
	"maps"
	"strings"
	"testing"
)

func TestMappedTableThatDoesNotFit(t *testing.T) {
	const mapped = "    existing: {table: app}\n    key: {id: int64}\n    columns: {n: int64 sum, d: decimal, at: timestamp}\n"
	const text = "    existing: {table: app}\n    key: {id: text}\n    columns: {n: int64 sum}\n"
	for name, c := range map[string]struct{ config, sql, want string }{
		"fits":             {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, d TEXT, at TIMESTAMP)", ""},
		"unique index":     {mapped, "CREATE TABLE app (id INT UNIQUE, n, d, at)", ""},
		"no table":         {mapped, "CREATE TABLE ap (id INTEGER)", "there is no table app"},
		"view":             {mapped, "CREATE VIEW app AS SELECT 1 AS id, 2 AS n, 3 AS d, 4 AS at", "a view does not do"},
		"no column":        {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, d TEXT)", "no column at"},
		"no unique index":  {mapped, "CREATE TABLE app (id INT, n INT, d TEXT, at TEXT)", "no unique index"},
		"wider index":      {mapped, "CREATE TABLE app (id INT, n INT, d TEXT, at TEXT, UNIQUE (id, n))", "no unique index"},
		"wider key":        {mapped, "CREATE TABLE app (id INTEGER, n INT, d TEXT, at TEXT, PRIMARY KEY (id, n))", "no unique index"},
		"generated":        {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT AS (id + 1), d TEXT, at TEXT)", "n is generated"},
		"decimal as float": {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, d DECIMAL(10,2), at TEXT)", `d is declared "DECIMAL(10,2)"`},
		"time as integer":  {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, d TEXT, at INTEGER)", `at is declared "INTEGER"`},
		"sum under CHECK":  {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT check (\"n\" >= 0), d TEXT, at TEXT)", "sum under a CHECK"},
		"random default":   {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT DEFAULT (abs(random() % 9)), d TEXT, at TEXT)", "gives another value each time"},
		"random, not met":  {strings.Replace(mapped, "app}", "app, missing_row: reject}", 1), "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT DEFAULT (random()), d TEXT, at TEXT)", ""},
		"random, set":      {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, d TEXT DEFAULT (random()), at TEXT)", ""},
		"CHECK elsewhere":  {mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, d TEXT CHECK (nn(d) IS NULL), at TEXT)", ""},
		"all at once":      {mapped, "CREATE TABLE app (id INT, n TEXT, d TEXT)", "no column at"},
		"text key":         {text, "CREATE TABLE app (id TEXT PRIMARY KEY, n INT)", ""},
		"NOCASE":           {text, "CREATE TABLE app (id TEXT PRIMARY KEY COLLATE NOCASE, n INT)", "NOCASE"},
		"partial index":    {text, "CREATE TABLE app (id TEXT, n INT); CREATE UNIQUE INDEX ix ON app (id) WHERE n > 0", "no unique index"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.config, strings.ReplaceAll(c.sql, "nn(d)", "nullif(d, d)"))
			err := f.ensure()
			if c.want == "" && err != nil || c.want != "" && (reason(err) == "" || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Ensure answered %v, want %q", err, c.want)
			}
			if name == "all at once" && (!strings.Contains(err.Error(), "unique index") || !strings.Contains(err.Error(), `"TEXT"`)) {
				t.Errorf("not every fault is named: %v", err)
			}
		})
	}
}

func TestOwnTableThatIsNot(t *testing.T) {
	if err := newFixture(t, counter, "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT)").ensure(); reason(err) != "name_taken" {
		t.Errorf("a table of others: %v, want name_taken", err)
	}
	f := newFixture(t, counter).start()
	f.exec("ALTER TABLE t DROP COLUMN name", "ALTER TABLE t ADD COLUMN name BLOB")
	if err := f.ensure(); reason(err) != "type_changed" {
		t.Errorf("a column of another type: %v, want type_changed", err)
	}
}

func TestTriggers(t *testing.T) {
	const mapped = "    existing: {table: app}\n    key: {id: int64}\n    columns: {n: int64 sum}\n"
	f := newFixture(t, mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT)",
		"CREATE TRIGGER no BEFORE INSERT ON app WHEN new.id = 2 BEGIN SELECT RAISE(ABORT, 'not two'); END").start()
	if len(f.warned) == 0 || !strings.Contains(f.warned[0], "no") {
		t.Errorf("warned %q, want the trigger named", f.warned)
	}
	one := map[string]string{"n": "1"}
	r := f.must(f.apply(f.entry(1, one), f.entry(2, one), f.entry(3, one)))
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "P0001" || !strings.Contains(r.Rejected[0].Reason, "not two") {
		t.Errorf("rejected %+v, want P0001 with the trigger's words", r.Rejected)
	}
	f.want("SELECT id, n FROM app", "1|1", "3|1")

	// One that rolls the whole transaction back would make the rest of the batch
	// commit by itself.
	f.exec("CREATE TRIGGER worse BEFORE INSERT ON app WHEN new.id = 5 BEGIN SELECT RAISE(ROLLBACK, 'all gone'); END")
	_, err := f.apply(f.entry(4, one), f.entry(5, one), f.entry(6, one))
	if reason(err) != "rollback_clause" {
		t.Errorf("Apply answered %v, want rollback_clause", err)
	}
	f.want("SELECT id, n FROM app", "1|1", "3|1")
	f.exec("DROP TRIGGER worse")
	f.take()
	f.must(f.apply(f.entry(4, one)))
}

func TestS10_DeferredForeignKey(t *testing.T) {
	const mapped = "    existing: {table: child}\n    key: {id: int64}\n    columns: {p: int64, n: int64 sum}\n"
	f := newFixture(t, mapped, "CREATE TABLE parent (id INTEGER PRIMARY KEY)", "INSERT INTO parent VALUES (7)",
		"CREATE TABLE child (id INTEGER PRIMARY KEY, n INT, p INT REFERENCES parent DEFERRABLE INITIALLY DEFERRED)").start()
	r := f.must(f.apply(f.entry(1, map[string]string{"p": "7"}), f.entry(2, map[string]string{"p": "8"}), f.entry(3, map[string]string{"n": "1"})))
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "23503" {
		t.Errorf("rejected %+v, want the child without a parent", r.Rejected)
	}
	f.want("SELECT id FROM child", "1", "3")
}

func TestS11_MappedSumOverflow(t *testing.T) {
	const mapped = "    existing: {table: app}\n    key: {id: int64}\n    columns: {n: int64 sum, hi: int64 max}\n"
	f := newFixture(t, mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, n INT, hi INT)",
		"INSERT INTO app VALUES (1, 9223372036854775807, 5), (2, NULL, NULL), (3, -9223372036854775807, 1)").start()
	r := f.must(f.apply(f.entry(1, map[string]string{"n": "1", "hi": "9"}), f.entry(2, map[string]string{"n": "5", "hi": "3"}), f.entry(3, map[string]string{"n": "-1"})))
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "22003" {
		t.Errorf("rejected %+v, want 22003", r.Rejected)
	}
	f.want("SELECT n, hi, typeof(n) FROM app", "9223372036854775807|5|integer", "5|3|integer", "-9223372036854775808|1|integer")
}

// Other programs write timestamps as SQLite's own functions do; text order is
// not time order between the forms.
func TestMappedTimestamps(t *testing.T) {
	const mapped = "    existing: {table: app}\n    key: {id: int64}\n    columns: {at: timestamp max, total: decimal sum}\n"
	f := newFixture(t, mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, at DATETIME, total TEXT)",
		"INSERT INTO app VALUES (1, '2026-01-02 03:04:05', '1.5'), (2, '2026-01-02 03:04:05', '1e3'), (3, 'soon', '0')").start()
	change := func(id int64, at string) map[string]string {
		return map[string]string{"at": at, "total": "0.25"}
	}
	r := f.must(f.apply(f.entry(1, change(1, "2026-01-02T01:00:00Z")), f.entry(2, change(2, "2026-01-02T04:00:00Z")), f.entry(3, change(3, "2026-01-02T04:00:00Z"))))
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "22018" || !strings.Contains(r.Rejected[0].Reason, "soon") {
		t.Errorf("rejected %+v, want the row that holds no timestamp", r.Rejected)
	}
	f.want("SELECT +at, total FROM app", "2026-01-02T03:04:05.000000Z|1.75", "2026-01-02T04:00:00.000000Z|1000.25", "soon|0")
}

// What people see with their own SQL.
func TestOwnTablesArePlain(t *testing.T) {
	f := newFixture(t, "    key: {id: int64}\n    columns: {n: int64 sum, d: decimal sum, at: timestamp, day: date, ok: bool, u: uuid, tags: \"text[]\", j: json, raw: bytes, who: text unique}\n").start()
	f.must(f.apply(f.entry(1, map[string]string{"n": "2", "d": "1.10", "at": "2026-01-02T03:04:05+01:00", "day": "2026-01-02", "ok": "true",
		"u": "00112233-4455-6677-8899-AABBCCDDEEFF", "tags": `["a"]`, "j": `{"a": 1}`}), f.entry(2, map[string]string{"ok": "false"})))
	f.want("SELECT n, d, at, day, ok, u, tags, j, j ->> 'a', who, typeof(who_hll) FROM t WHERE id = 1",
		`2|1.1|2026-01-02T02:04:05.000000Z|2026-01-02|1|00112233-4455-6677-8899-aabbccddeeff|["a"]|{"a":1}|1|0|null`)
	f.want("SELECT n, d, who, ok FROM t WHERE id = 2", "0|0|0|0")
	f.want("SELECT count(*) FROM t WHERE at < datetime('2026-01-03') AND sluice_slot BETWEEN 0 AND 16383", "1")
}

func TestSluiceTablesAreOfThisVersion(t *testing.T) {
	f := newFixture(t, counter).start()
	f.exec("UPDATE sluice_meta SET format = 99")
	if err := f.ensure(); reason(err) != "newer_format" {
		t.Errorf("Ensure answered %v, want newer_format", err)
	}
}

// A default is what the column makes of it: SQLite has no types for constants.
func TestS11_DefaultsOfEveryForm(t *testing.T) {
	const mapped = "    existing: {table: app}\n    key: {id: int64}\n    columns: {title: text, n: int64 sum, hi: int64 max, f: float64 min, total: decimal sum, low: decimal min, high: decimal max, at: timestamp max, day: date min, none: decimal sum}\n"
	f := newFixture(t, mapped, "CREATE TABLE app (id INTEGER PRIMARY KEY, title TEXT, n INT DEFAULT 7.0, hi INT DEFAULT '50', f REAL DEFAULT '-1', total TEXT DEFAULT 1.5, low TEXT DEFAULT '9.5', high TEXT DEFAULT 10,"+
		" at DATETIME DEFAULT (datetime('2027-01-15 08:00:00')), day DATE DEFAULT '2026-01-01', none TEXT DEFAULT NULL)").start()
	title := map[string]string{"title": "x"}
	rest := map[string]string{"n": "3", "hi": "9", "f": "2", "total": "0.25", "low": "10", "high": "9.75", "at": "2026-05-05T00:00:00Z", "day": "2026-02-02", "none": "2"}
	all := map[string]string{"title": "x"}
	maps.Copy(all, rest)
	f.must(f.apply(f.entry(1, title)))
	f.must(f.apply(f.entry(1, rest)))
	f.must(f.apply(f.entry(2, all)))
	f.must(f.apply(f.entry(3, title), f.entry(3, rest)))
	f.must(f.apply(f.entry(4, rest), f.entry(4, title)))
	const row = "x|10|integer|50|-1|1.75|9.5|10|2027-01-15T08:00:00.000000Z|2026-01-01|2"
	f.want("SELECT title, n, typeof(n), hi, f, total, low, high, +at, +day, none FROM app", row, row, row, row)

	f.must(f.apply(f.entry(5, map[string]string{"n": "9223372036854775800"})))
	r := f.must(f.apply(f.entry(6, map[string]string{"n": "9223372036854775801"})))
	if len(r.Rejected) != 1 || r.Rejected[0].SQLState != "22003" {
		t.Errorf("rejected %+v, want the sum that leaves the range with its default", r.Rejected)
	}
}
