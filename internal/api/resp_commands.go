package api

import (
	"slices"
	"strings"

	"github.com/tidwall/redcon"
)

// respCommandNameMax is the longest name that can be a command's.
const respCommandNameMax = 16

// respCommand is a command of this door. The list of them is what dispatch,
// COMMAND, COMMAND DOCS and the errors about arguments read.
type respCommand struct {
	name      string // lower case
	arity     int    // with the name itself; -n: at least n, as Redis says it
	write     bool   // waits in the pipeline's chunk; others submit that first
	open      bool   // allowed before AUTH
	endsMulti bool   // done even after a refused MULTI
	keys      [3]int // first key, last key, step
	group     string
	usage     string
	summary   string
	do        func(c *respConn, args [][]byte)
}

func respCommands() map[string]*respCommand {
	byName := map[string]*respCommand{}
	for _, list := range [][]respCommand{respDataCommands(), respOtherCommands()} {
		for i := range list {
			byName[list[i].name] = &list[i]
		}
	}
	return byName
}

func respDataCommands() []respCommand {
	return []respCommand{
		{name: "hincrby", arity: 4, write: true, keys: [3]int{1, 1, 1}, group: "hash", do: hincrby,
			usage: "HINCRBY table:key column amount", summary: "Adds to a sum. Answers the amount that was accepted, not the total."},
		{name: "hincrbyfloat", arity: 4, write: true, keys: [3]int{1, 1, 1}, group: "hash", do: hincrbyfloat,
			usage: "HINCRBYFLOAT table:key column amount", summary: "Adds to a decimal or inexact sum. Answers the amount that was accepted, not the total."},
		{name: "hset", arity: -4, write: true, keys: [3]int{1, 1, 1}, group: "hash", do: hset,
			usage: "HSET table:key column value [column value ...]", summary: "Sets columns; offers a max or min column a candidate. Answers how many columns were accepted, not how many are new."},
		{name: "hmset", arity: -4, write: true, keys: [3]int{1, 1, 1}, group: "hash", do: hmset,
			usage: "HMSET table:key column value [column value ...]", summary: "HSET that answers OK."},
		{name: "pfadd", arity: -3, write: true, keys: [3]int{1, 1, 1}, group: "hyperloglog", do: pfadd,
			usage: "PFADD table.column:key element [element ...]", summary: "Adds elements to a unique column. Answers 1 when they were accepted."},
		{name: "del", arity: -2, write: true, keys: [3]int{1, -1, 1}, group: "generic", do: del,
			usage: "DEL table:key [table:key ...]", summary: "Deletes rows. Answers how many deletes were accepted, not how many rows there were."},
		{name: "xadd", arity: -5, write: true, keys: [3]int{1, 1, 1}, group: "stream", do: xadd,
			usage: "XADD table.group:key * column value [column value ...]", summary: "Appends an event. The id names its commit."},
		{name: "hget", arity: 3, keys: [3]int{1, 1, 1}, group: "hash", do: hget,
			usage: "HGET table:key column", summary: "Reads a column from the database. The field sluice:stale_ms says how old the oldest write is that the row may not show."},
		{name: "hmget", arity: -3, keys: [3]int{1, 1, 1}, group: "hash", do: hmget,
			usage: "HMGET table:key column [column ...]", summary: "Reads columns from the database, and sluice:stale_ms as HGET does."},
		{name: "hgetall", arity: 2, keys: [3]int{1, 1, 1}, group: "hash", do: hgetall,
			usage: "HGETALL table:key", summary: "Reads all columns that have a value."},
		{name: "pfcount", arity: -2, keys: [3]int{1, 1, 1}, group: "hyperloglog", do: pfcount,
			usage: "PFCOUNT table.column:key", summary: "Reads the estimate of a unique column."},
		{name: "exists", arity: -2, keys: [3]int{1, -1, 1}, group: "generic", do: exists,
			usage: "EXISTS table:key [table:key ...]", summary: "Counts the rows that are in the database."},
	}
}

func respOtherCommands() []respCommand {
	return []respCommand{
		{name: "wait", arity: 3, group: "generic", do: wait,
			usage: "WAIT 1 milliseconds", summary: "Waits until all that this connection wrote is applied. Answers 1, or 0 when it is not yet, or when a database refused some of it."},
		{name: "waitaof", arity: 4, group: "generic", do: waitaof,
			usage: "WAITAOF 1 0 0", summary: "Answers 1 and 0 at once: every answer to a write already means that it is durable."},
		{name: "auth", arity: -2, open: true, group: "connection", do: auth,
			usage: "AUTH [name] token", summary: "Says which client of the config this is."},
		{name: "hello", arity: -1, open: true, group: "connection", do: hello,
			usage: "HELLO [2|3 [AUTH name token] [SETNAME name]]", summary: "Chooses the protocol."},
		{name: "ping", arity: -1, group: "connection", do: ping, usage: "PING [message]", summary: "Answers PONG."},
		{name: "echo", arity: 2, group: "connection", do: echo, usage: "ECHO message", summary: "Answers the message."},
		{name: "select", arity: 2, group: "connection", do: selectDB, usage: "SELECT 0", summary: "There is only database 0."},
		{name: "quit", arity: -1, open: true, endsMulti: true, group: "connection", do: quit, usage: "QUIT", summary: "Closes the connection."},
		{name: "reset", arity: 1, open: true, endsMulti: true, group: "connection", do: reset, usage: "RESET", summary: "Makes the connection what it was when it came."},
		{name: "client", arity: -2, group: "connection", do: client,
			usage: "CLIENT SETINFO|SETNAME|GETNAME|ID|INFO", summary: "Tells about this connection."},
		{name: "info", arity: -1, group: "server", do: info,
			usage: "INFO [section ...]", summary: "Figures: Server, Clients, Memory, Persistence, Stats, Replication, Journal, Groups."},
		{name: "config", arity: -2, group: "server", do: config, usage: "CONFIG GET pattern [pattern ...]", summary: "Settings in Redis' names."},
		{name: "command", arity: -1, group: "server", do: command,
			usage: "COMMAND [COUNT|LIST|INFO [name ...]|DOCS [name ...]]", summary: "Tells about the commands."},
		{name: "multi", arity: 1, group: "transactions", do: multi, usage: "MULTI", summary: "Refused: each command stands alone."},
		{name: "watch", arity: -2, group: "transactions", do: multi, usage: "WATCH key", summary: "Refused: there are no transactions."},
		{name: "exec", arity: 1, endsMulti: true, group: "transactions", do: exec, usage: "EXEC", summary: "Ends a refused MULTI."},
		{name: "discard", arity: 1, endsMulti: true, group: "transactions", do: exec, usage: "DISCARD", summary: "Ends a refused MULTI."},
	}
}

// instead names the way here for commands that people try first.
var instead = map[string]string{
	"get": "rows have columns: use HGET table:key column", "mget": "use HMGET table:key column ...",
	"set": "rows have columns: use HSET table:key column value", "mset": "use HSET table:key column value ...",
	"incr": "use HINCRBY table:key column 1", "incrby": "use HINCRBY table:key column amount",
	"decr": "use HINCRBY table:key column -1", "decrby": "use HINCRBY table:key column -amount",
	"incrbyfloat": "use HINCRBYFLOAT table:key column amount", "hdel": "a column cannot be taken out of a row: set it, or DEL the row",
	"unlink": "use DEL table:key", "expire": "rows do not expire", "setex": "rows do not expire: use HSET",
	"hsetnx": "a write never depends on what is there: use HSET", "setnx": "a write never depends on what is there: use HSET",
	"sadd":  "use PFADD table.column:key element, which estimates the number of distinct elements",
	"xread": "read events in the database", "xrange": "read events in the database",
	"rpush": "use XADD table.group:key * column value", "lpush": "use XADD table.group:key * column value",
	"eval": "there are no scripts", "evalsha": "there are no scripts",
	"keys": "list keys in the database", "scan": "list keys in the database",
}

// unknown answers a command that is not there. A browser that was led to post
// to this port speaks in lines, of which some could be commands: it is sent away at
// its first words, as Redis does.
func (c *respConn) unknown(args [][]byte) {
	name := strings.ToLower(string(args[0][:min(len(args[0]), 64)]))
	switch {
	case name == "post" || name == "host:":
		c.work.fail("ERR", "this port speaks RESP, the protocol of Redis, and not HTTP")
		c.quit = true
	case c.principal == nil:
		c.work.fail("NOAUTH", "Authentication required: AUTH name token, or AUTH token")
	case instead[name] != "":
		c.work.fail("ERR", "unknown command '"+name+"': "+instead[name])
	default:
		c.work.fail("ERR", "unknown command "+quoted(args[0])+": COMMAND LIST names those that are known")
	}
}

func command(c *respConn, args [][]byte) {
	names := make([]string, 0, len(c.door.commands))
	for name := range c.door.commands {
		names = append(names, name)
	}
	slices.Sort(names)
	sub := ""
	if len(args) > 1 {
		sub = strings.ToLower(string(args[1]))
	}
	if len(args) > 2 {
		names = names[:0]
		for _, a := range args[2:] {
			names = append(names, strings.ToLower(string(a)))
		}
	}
	out := c.work.out
	switch {
	case sub == "count" && len(args) == 2:
		out = redcon.AppendInt(out, int64(len(names)))
	case sub == "list" && len(args) == 2:
		out = redcon.AppendArray(out, len(names))
		for _, n := range names {
			out = redcon.AppendBulkString(out, n)
		}
	case sub == "" || sub == "info":
		out = redcon.AppendArray(out, len(names))
		for _, n := range names {
			out = c.appendCommand(out, c.door.commands[n])
		}
	case sub == "docs":
		names = slices.DeleteFunc(names, func(n string) bool { return c.door.commands[n] == nil })
		out = c.appendMap(out, len(names))
		for _, n := range names {
			out = c.appendDocs(out, c.door.commands[n])
		}
	default:
		c.work.fail("ERR", "unknown subcommand "+quoted(args[1])+" of 'command': it knows COUNT, LIST, INFO and DOCS")
		return
	}
	c.work.out = out
}

func (c *respConn) appendCommand(out []byte, cmd *respCommand) []byte {
	if cmd == nil {
		return c.appendNull(out)
	}
	out = redcon.AppendArray(out, 6)
	out = redcon.AppendBulkString(out, cmd.name)
	out = redcon.AppendInt(out, int64(cmd.arity))
	flag := "readonly"
	if cmd.write {
		flag = "write"
	}
	out = redcon.AppendString(redcon.AppendArray(out, 1), flag)
	for _, k := range cmd.keys {
		out = redcon.AppendInt(out, int64(k))
	}
	return out
}

// appendDocs gives the words after the name as one argument: redis-cli shows
// them as its help.
func (c *respConn) appendDocs(out []byte, cmd *respCommand) []byte {
	out = redcon.AppendBulkString(out, cmd.name)
	_, words, _ := strings.Cut(cmd.usage, " ")
	fields := 3
	if words != "" {
		fields = 4
	}
	out = c.appendMap(out, fields)
	out = appendPair(out, "summary", cmd.summary)
	out = appendPair(out, "since", "1.0.0")
	out = appendPair(out, "group", cmd.group)
	if words != "" {
		out = redcon.AppendArray(redcon.AppendBulkString(out, "arguments"), 1)
		out = appendPair(appendPair(c.appendMap(out, 2), "name", words), "type", "string")
	}
	return out
}
