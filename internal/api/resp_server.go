package api

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/redcon"

	"sluice.dev/sluice"
)

// respClientNameMax bounds CLIENT SETNAME.
const respClientNameMax = 128

func ping(c *respConn, args [][]byte) {
	switch len(args) {
	case 1:
		c.work.out = redcon.AppendString(c.work.out, "PONG")
	case 2:
		c.work.out = redcon.AppendBulk(c.work.out, args[1])
	default:
		c.work.fail("ERR", "wrong number of arguments for 'ping' command: use PING [message]")
	}
}

func echo(c *respConn, args [][]byte) { c.work.out = redcon.AppendBulk(c.work.out, args[1]) }

func quit(c *respConn, _ [][]byte) {
	c.work.out = redcon.AppendOK(c.work.out)
	c.quit = true
}

func selectDB(c *respConn, args [][]byte) {
	if string(args[1]) != "0" {
		c.work.fail("ERR", "DB index is out of range: there is only database 0, and tables part the keys")
		return
	}
	c.work.out = redcon.AppendOK(c.work.out)
}

// reset makes the connection what it was when it came.
func reset(c *respConn, _ [][]byte) {
	c.identify()
	c.resp3, c.inMulti, c.name = false, false, ""
	c.work.out = redcon.AppendString(c.work.out, "RESET")
}

func auth(c *respConn, args [][]byte) {
	if len(args) > 3 {
		c.work.fail("ERR", "wrong number of arguments for 'auth' command: use AUTH token or AUTH name token")
		return
	}
	if c.authenticate(args[1:]) {
		c.work.out = redcon.AppendOK(c.work.out)
	}
}

// authenticate takes a token, or a name and a token. Client libraries that know
// a password only say `default` for the name, as Redis calls it.
func (c *respConn) authenticate(args [][]byte) bool {
	a := c.door.o.Auth
	if a.Open() {
		c.work.fail("ERR", "AUTH was sent, but no client is configured: leave the password out, or add `clients` to the config")
		return false
	}
	var p *Principal
	var err error
	if len(args) == 1 || string(args[0]) == "default" {
		p, err = a.Token(string(args[len(args)-1]))
	} else {
		p, err = a.NamedToken(string(args[0]), string(args[1]))
	}
	if err != nil {
		c.work.fail("WRONGPASS", asError(err).Detail)
		return false
	}
	c.principal, c.table = p, nil
	c.refresh()
	return true
}

// hello is HELLO [2|3 [AUTH name token] [SETNAME name]].
func hello(c *respConn, args [][]byte) {
	resp3, name, named := c.resp3, "", false
	if len(args) > 1 {
		switch string(args[1]) {
		case "2":
			resp3 = false
		case "3":
			resp3 = true
		default:
			c.work.fail("NOPROTO", "unsupported protocol version: say HELLO 2 or HELLO 3")
			return
		}
	}
	for rest := args[min(2, len(args)):]; len(rest) > 0; {
		switch {
		case equalFold("auth", rest[0]) && len(rest) >= 3:
			if !c.authenticate(rest[1:3]) {
				return
			}
			rest = rest[3:]
		case equalFold("setname", rest[0]) && len(rest) >= 2:
			if !goodClientName(rest[1]) {
				c.work.fail("ERR", badClientName)
				return
			}
			name, named = string(rest[1]), true
			rest = rest[2:]
		default:
			c.work.fail("ERR", "Syntax error in HELLO option "+quoted(rest[0]))
			return
		}
	}
	if c.principal == nil {
		c.work.fail("NOAUTH", "HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <name> <token> option can be used")
		return
	}
	c.resp3 = resp3
	if named {
		c.name = name
	}
	out := c.appendMap(c.work.out, 7)
	out = appendPair(out, "server", "sluice")
	out = appendPair(out, "version", c.door.o.Version)
	out = redcon.AppendInt(redcon.AppendBulkString(out, "proto"), int64(c.proto()))
	out = redcon.AppendInt(redcon.AppendBulkString(out, "id"), int64(c.id))
	out = appendPair(out, "mode", "standalone")
	out = appendPair(out, "role", "master")
	c.work.out = redcon.AppendArray(redcon.AppendBulkString(out, "modules"), 0)
}

func (c *respConn) proto() int {
	if c.resp3 {
		return 3
	}
	return 2
}

func appendPair(out []byte, name, value string) []byte {
	return redcon.AppendBulkString(redcon.AppendBulkString(out, name), value)
}

const badClientName = "Client names cannot contain spaces, newlines or special characters, and have at most 128 bytes"

func goodClientName(name []byte) bool {
	return len(name) <= respClientNameMax && !slices.ContainsFunc(name, func(ch byte) bool { return ch < '!' || ch > '~' })
}

func client(c *respConn, args [][]byte) {
	out := c.work.out
	switch sub := strings.ToLower(string(args[1])); {
	case sub == "setinfo" && len(args) == 4: // taken, for libraries that say it; nothing reads it
		c.work.out = redcon.AppendOK(out)
	case sub == "setname" && len(args) == 3:
		if !goodClientName(args[2]) {
			c.work.fail("ERR", badClientName)
			return
		}
		c.name = string(args[2])
		c.work.out = redcon.AppendOK(out)
	case sub == "getname" && len(args) == 2 && c.name == "":
		c.work.out = c.appendNull(out)
	case sub == "getname" && len(args) == 2:
		c.work.out = redcon.AppendBulkString(out, c.name)
	case sub == "id" && len(args) == 2:
		c.work.out = redcon.AppendInt(out, int64(c.id))
	case sub == "info" && len(args) == 2:
		c.work.out = redcon.AppendBulkString(out, fmt.Sprintf("id=%d addr=%s name=%s user=%s resp=%d\n",
			c.id, c.nc.RemoteAddr(), c.name, c.principal.Name, c.proto()))
	default:
		c.work.fail("ERR", "unknown subcommand or wrong number of arguments for 'client': it knows SETINFO, SETNAME, GETNAME, ID and INFO")
	}
}

// multi refuses a transaction and everything in it up to EXEC. Client libraries
// send MULTI, the commands and EXEC in one piece: were only MULTI and EXEC refused,
// the commands between would count although the client is told that they failed.
func multi(c *respConn, args [][]byte) {
	if equalFold("multi", args[0]) {
		c.inMulti = true
	}
	c.work.fail("ERR", "no transactions: each command stands alone, and a pipeline is durable as one commit; send it without MULTI")
}

func exec(c *respConn, args [][]byte) {
	was := c.inMulti
	c.inMulti = false
	switch {
	case !was:
		c.work.fail("ERR", strings.ToUpper(string(args[0]))+" without MULTI")
	case equalFold("discard", args[0]):
		c.work.out = redcon.AppendOK(c.work.out)
	default:
		c.work.fail("EXECABORT", "Transaction discarded: there are no transactions; nothing of it was done")
	}
}

// config answers CONFIG GET for what clients and benchmarks look at.
func config(c *respConn, args [][]byte) {
	if !equalFold("get", args[1]) || len(args) < 3 {
		c.work.fail("ERR", "only CONFIG GET is known: settings are changed in the config file, which a reload reads again")
		return
	}
	var found [][2]string
	for _, kv := range c.settings() {
		if slices.ContainsFunc(args[2:], func(p []byte) bool {
			ok, _ := path.Match(strings.ToLower(string(p)), kv[0])
			return ok
		}) {
			found = append(found, kv)
		}
	}
	c.work.out = c.appendMap(c.work.out, len(found))
	for _, kv := range found {
		c.work.out = appendPair(c.work.out, kv[0], kv[1])
	}
}

// settings says this door's limits in Redis' names.
func (c *respConn) settings() [][2]string {
	l := &c.schema.Limits
	return [][2]string{
		{"appendfsync", "always"},
		{"appendonly", "yes"},
		{"databases", "1"},
		{"maxclients", strconv.Itoa(l.ConnsMax)},
		{"maxmemory", strconv.FormatInt(l.MemoryMax, 10)},
		{"maxmemory-policy", "noeviction"},
		{"proto-max-bulk-len", strconv.Itoa(min(l.ValueBytesMax, l.LineBytesMax))},
		{"save", ""},
		{"timeout", strconv.Itoa(int(l.IdleTimeout.Seconds()))},
	}
}

// info answers sections of figures; without arguments all of them.
func info(c *respConn, args [][]byte) {
	wanted := func(section string) bool {
		return len(args) == 1 || slices.ContainsFunc(args[1:], func(a []byte) bool {
			return equalFold(strings.ToLower(section), a) || equalFold("all", a) || equalFold("everything", a) || equalFold("default", a)
		})
	}
	status := c.door.o.Admin.Status()
	var b strings.Builder
	for _, section := range c.infoSections(&status) {
		if !wanted(section.name) {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString("# " + section.name + "\r\n")
		for _, line := range section.lines {
			b.WriteString(line + "\r\n")
		}
	}
	c.work.out = redcon.AppendBulkString(c.work.out, b.String())
}

type infoSection struct {
	name  string
	lines []string
}

func (c *respConn) infoSections(s *sluice.Status) []infoSection {
	st := &c.door.stats
	j := &s.Journal
	sections := []infoSection{
		{"Server", []string{
			"redis_version:7.2.0", // what this door speaks: clients choose by it
			"redis_mode:standalone",
			"sluice_version:" + s.Version,
			fmt.Sprintf("uptime_in_seconds:%d", int64(s.Uptime)),
		}},
		{"Clients", []string{
			fmt.Sprintf("connected_clients:%d", st.connected.Load()),
			fmt.Sprintf("maxclients:%d", c.schema.Limits.ConnsMax),
		}},
		{"Memory", []string{
			fmt.Sprintf("used_memory:%d", s.Memory),
			fmt.Sprintf("resp_buffers:%d", c.door.buffers.Load()),
		}},
		{"Persistence", []string{
			fmt.Sprintf("loading:%d", oneIf(!s.Ready)),
			"aof_enabled:1",
			fmt.Sprintf("aof_current_size:%d", j.Bytes),
		}},
		{"Stats", []string{
			fmt.Sprintf("total_connections_received:%d", st.accepted.Load()+st.refused.Load()),
			fmt.Sprintf("rejected_connections:%d", st.refused.Load()),
			fmt.Sprintf("total_commands_processed:%d", st.commands.Load()),
			fmt.Sprintf("total_net_input_bytes:%d", st.bytesIn.Load()),
			fmt.Sprintf("total_net_output_bytes:%d", st.bytesOut.Load()),
		}},
		{"Replication", []string{"role:master", "connected_slaves:0"}},
		{"Journal", []string{
			"journal_id:" + j.ID,
			fmt.Sprintf("journal_head:%d", j.Head),
			fmt.Sprintf("journal_first:%d", j.First),
			fmt.Sprintf("journal_bytes:%d", j.Bytes),
			fmt.Sprintf("journal_bytes_max:%d", j.BytesMax),
			fmt.Sprintf("journal_segments:%d", j.Segments),
			fmt.Sprintf("journal_commits:%d", j.Commits),
			fmt.Sprintf("accepted_writes:%d", j.Accepted),
			fmt.Sprintf("accepted_writes_per_s:%.0f", j.PerSecond),
			"refusing:" + j.Refusing,
		}},
	}
	return append(sections, infoSection{"Groups", c.infoGroups(s)})
}

// infoGroups tells of the tables that this client may read.
func (c *respConn) infoGroups(s *sluice.Status) []string {
	var lines []string
	for _, g := range s.Streams {
		if c.principal.MayRead(g.Table) != nil {
			continue
		}
		name := g.Table
		if g.Group != "" {
			name += "." + g.Group
		}
		line := fmt.Sprintf("%s@%s/%s:state=%s,queued=%d,parked=%d,applied=%d,rejected=%d,rows=%d,fold_ratio=%.2f,age_s=%.3f",
			name, g.Store, g.Shard, g.State, g.Queued, g.Parked, g.Applied, g.Rejected, g.Rows, g.FoldRatio, g.AgeSec)
		lines = append(lines, line)
	}
	return lines
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}
