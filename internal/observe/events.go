package observe

// Level says who should look; the numbers are those of slog.
type Level int

// The levels.
const (
	Debug Level = -4
	Info  Level = 0
	Warn  Level = 4 // it goes on, and somebody may want to know
	Error Level = 8 // something stopped and waits for somebody to act
)

// Event is one thing that is logged. The fields come with it.
type Event struct {
	Name  string
	Level Level
	Help  string // one sentence for whoever finds it in a log
}

var events []*Event

// Events lists every event, in the order of the docs.
func Events() []*Event { return events }

func event(level Level, name, help string) *Event {
	e := &Event{Name: name, Level: level, Help: help}
	events = append(events, e)
	return e
}

// The life of the process.
var (
	EventReady     = event(Info, "ready", "Recovery is done and the doors are open.")
	EventStopping  = event(Info, "stopping", "The doors close; what was accepted is made durable and drained to the deadline.")
	EventNotEmpty  = event(Info, "stopped before everything was drained", "The rest is in the journal; the next start goes on from there.")
	EventReloaded  = event(Info, "config reloaded", "One event for each change that took effect.")
	EventReloadBad = event(Error, "config not reloaded", "The new config has faults; the old one stays in force.")
	EventFatal     = event(Error, "fatal", "The journal or its disk failed; the process stops and recovers at its next start.")
)

// Accepting.
var (
	EventRefusing  = event(Warn, "refusing writes", "A limit was reached; the reason is the one that clients are told.")
	EventAccepting = event(Info, "accepting writes again", "The limit is no longer reached.")
	EventDoor      = event(Warn, "door", "A connection failed in a way that its client could not be told.")
)

// Hot keys.
var (
	EventHot  = event(Info, "hot key", "A key takes at least 1 % of its group's writes; the event says what is done about it.")
	EventCool = event(Info, "hot key is cool", "A key that was hot has been written less for a while.")
)

// Draining.
var (
	EventRetry      = event(Warn, "drain retries", "The shard did not take a batch; the drain backs off and goes on from the shard's cursor.")
	EventGoesOn     = event(Info, "drain goes on", "The shard takes batches again.")
	EventStopped    = event(Error, "drain stopped", "Retrying cannot help; the error names the command that goes on.")
	EventRewound    = event(Warn, "drain rewinds", "The shard came back with an older cursor; the commits since then are applied again, each once.")
	EventRejects    = event(Warn, "rows rejected", "The database refused rows; `sluice rejects ls` shows them.")
	EventShardOut   = event(Error, "shard is not in use", "The shard cannot be opened or is not ours; the others go on.")
	EventRetainNote = event(Info, "journal keeps less than asked", "retain.bytes wins over retain.time.")
)
