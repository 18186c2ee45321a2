package api

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sluice.dev/sluice"
)

// stream is one NDJSON body. Two goroutines share it: one reads, cuts and
// parses, at most streamAhead chunks ahead; the handler submits the chunks one
// after the other and answers. Chunks are never submitted side by side: the
// lines of a body are journaled in their order, so that the last `set` of a key
// wins.
type stream struct {
	q     *request
	id    *sluice.Identity
	cut   cutter
	jobs  chan *job // cut and parsed, in order
	spare chan *job // done with, their memory used again
	err   error     // of reading; set before jobs is closed

	accepted, refused uint64
	begun             bool // something of the answer was sent

	deadlines sync.Mutex // a deadline pushed on must not undo cutOff
	isCutOff  bool       // nothing more is read, and the connection ends with the answer
	bodyRead  bool       // to its end
	over      bool       // the request's writer is no longer ours to touch
}

// closeLinger is how long what a refused client still sends is read and thrown
// away. Closing at once would reset the connection, and the client would lose
// the answer that says why.
const closeLinger = 500 * time.Millisecond

// stream answers an NDJSON body: a line for each fault, one for each chunk, and
// a last line with the sums. The answer begins when the first chunk is durable,
// so that what fails before has its own status; what fails later is a line with
// the error, and no last line.
func (q *request) stream() error {
	wait, id, err := q.writeOptions()
	if err != nil {
		return err
	}
	if wait > 0 {
		return sluice.Errorf(sluice.Invalid, "bad_request", "a stream does not wait; ask GET /v1/receipts/{receipt}?wait= for the receipts in its answer")
	}
	body, done, err := q.decoded()
	if err != nil {
		return err
	}
	defer done()
	rc := http.NewResponseController(q.w)
	// Fails where the protocol is full duplex anyway, and where no network is.
	_ = rc.EnableFullDuplex()
	timeout := q.schema.Limits.ReadTimeout
	s := &stream{q: q, id: id, jobs: make(chan *job, streamAhead), spare: make(chan *job, streamAhead+2)}
	s.cut = cutter{src: body, lineMax: q.schema.Limits.LineBytesMax,
		progress: func() { s.pushDeadline(timeout) },
		grow:     q.h.grow}
	ctx, cancel := q.waiting()
	defer cancel()
	defer context.AfterFunc(ctx, s.cutOff)()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		defer close(s.jobs)
		s.err = s.read(ctx)
	}()
	err = s.submit(ctx, rc)
	// The reader may hang in a read of a silent client, and the body must not be
	// touched once the handler has returned.
	if err != nil {
		cancel()
		s.cutOff()
	}
	for j := range s.jobs {
		j.free()
	}
	<-stopped
	s.freeSpares()
	s.linger()
	return s.end(err, rc)
}

// pushDeadline gives the client until timeout from now to send more.
func (s *stream) pushDeadline(timeout time.Duration) {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	if !s.isCutOff && !s.bodyRead {
		s.q.setReadDeadline(time.Now().Add(timeout))
	}
}

// cutOff ends reading, also a read under way.
//
// Not once the body was read: net/http then reads ahead to hear of a client
// that goes away, takes a deadline for that, and cancels the context of this
// and every later request on the connection.
func (s *stream) cutOff() {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	if !s.bodyRead && !s.over {
		s.isCutOff = true
		s.q.setReadDeadline(time.Unix(1, 0))
	}
}

// bodyEnds takes the deadline away that the last read pushed on: it would end
// the context of a request that waits longer for its commit.
func (s *stream) bodyEnds() {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	s.bodyRead = true
	if !s.isCutOff {
		s.q.setReadDeadline(time.Time{})
	}
}

// linger ends the stream's hold on the deadline. A connection that is given up
// gets closeLinger.
func (s *stream) linger() {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	s.over = true
	if s.isCutOff || !s.bodyRead {
		s.q.setReadDeadline(time.Now().Add(closeLinger))
	}
}

// keepsConnection tells whether the connection is fit for another request.
func (s *stream) keepsConnection() bool {
	s.deadlines.Lock()
	defer s.deadlines.Unlock()
	return s.bodyRead && !s.isCutOff
}

// read cuts and parses until the body ends, ctx ends, or nobody takes chunks.
func (s *stream) read(ctx context.Context) error {
	for index := uint64(0); ; index++ {
		j, err := s.job()
		if err != nil {
			return err
		}
		err = s.cut.next(j)
		if err == nil && s.id != nil && s.id.Producer != 0 {
			err = s.onlyChunk(j)
		}
		if err != nil {
			j.free()
			if err == io.EOF {
				s.bodyEnds()
				return nil
			}
			return err
		}
		if s.cut.eof {
			s.bodyEnds()
		}
		j.identify(s.id, index)
		j.parse()
		select {
		case s.jobs <- j:
		case <-ctx.Done():
			j.free()
			return ctx.Err()
		}
	}
}

// job takes a job that was used before, if there is one. A body may last for
// hours: each chunk asks anew which schema and which rights are in force.
func (s *stream) job() (*job, error) {
	h := s.q.h
	who, err := h.o.Auth.Current(s.q.who)
	if err == nil {
		err = who.MayWrite("")
	}
	if err != nil {
		return nil, err
	}
	var j *job
	select {
	case j = <-s.spare:
	default:
		j = h.jobs.Get().(*job)
	}
	j.begin(h.o.Writes.Schema(), who)
	return j, nil
}

func (s *stream) freeSpares() {
	s.q.h.memory.Add(-s.cut.taken)
	for {
		select {
		case j := <-s.spare:
			j.free()
		default:
			return
		}
	}
}

// onlyChunk refuses a second chunk: a producer's number names one (I3). It looks
// before the first is submitted, so that nothing of the body is accepted.
func (s *stream) onlyChunk(j *job) error {
	more, err := s.cut.more(j)
	if err != nil {
		return err
	}
	if more {
		return sluice.Errorf(sluice.TooLarge, "producer_chunk", "a request with %s carries one chunk: at most %d lines and %d bytes; send the rest under the next number",
			producerHeader, sluice.ChunkLinesMax, sluice.ChunkBytesMax)
	}
	return nil
}

// submit takes the chunks in order until there are no more or one fails.
func (s *stream) submit(ctx context.Context, rc *http.ResponseController) error {
	for j := range s.jobs {
		if ctx.Err() != nil {
			j.free()
			return ctx.Err()
		}
		err := s.submitOne(j)
		s.spare <- j // has room: no more jobs than this exist at once
		if err != nil {
			return err
		}
		if len(s.jobs) == 0 {
			s.flush(rc)
		}
	}
	return s.err
}

func (s *stream) submitOne(j *job) error {
	ack := sluice.Ack{}
	if !j.tooLong {
		// The request's own context: a chunk under way is not given up when the
		// door closes.
		var err error
		ack, err = s.q.h.o.Writes.Submit(s.q.r.Context(), &j.chunk)
		if err != nil && !j.nothingGood() {
			return err
		}
	}
	if j.nothingGood() && ack.Commit == 0 {
		ack = sluice.Ack{Outcomes: j.outcomes}
	} else if err := refusedNow(&ack); err != nil {
		return err
	}
	s.answer(j, &ack)
	return nil
}

// nothingGood tells that all lines of a parsed chunk are wrong or blank: there
// was nothing to accept, which is no reason to stop.
func (j *job) nothingGood() bool { return len(j.bad)+j.blank == len(j.ends) }

// answer appends the faults of a chunk and its receipt line.
func (s *stream) answer(j *job, ack *sluice.Ack) {
	b := s.q.out
	bad, refused := j.bad, 0
	for i, r := range ack.Outcomes {
		line := j.first + i
		for len(bad) > 0 && bad[0].line < line {
			bad = bad[1:]
		}
		switch {
		case r == sluice.Accepted:
			continue
		case !ack.Duplicate && len(bad) > 0 && bad[0].line == line:
			b = append(appendFault(b, &bad[0]), '\n')
		default:
			b = append(appendOutcome(b, line, r), '\n')
		}
		refused++
	}
	accepted := len(j.ends) - j.blank - refused
	s.accepted += uint64(accepted)
	s.refused += uint64(refused)
	if ack.Receipt != "" {
		b = append(b, `{"receipt":"`...)
		b = append(b, ack.Receipt...)
		b = append(b, `","first":`...)
		b = strconv.AppendInt(b, int64(j.first), 10)
		b = append(b, `,"last":`...)
		b = strconv.AppendInt(b, int64(j.first+len(j.ends)-1), 10)
		b = append(b, `,"accepted":`...)
		b = strconv.AppendInt(b, int64(accepted), 10)
		b = append(b, `,"refused":`...)
		b = strconv.AppendInt(b, int64(refused), 10)
		if ack.Duplicate {
			b = append(b, `,"duplicate":true`...)
		}
		b = append(b, '}', '\n')
	}
	s.q.out = b
}

// flush sends what was answered so far. A client that does not read is cut off
// by the deadline; its answer is lost, and it sends again with the same key.
func (s *stream) flush(rc *http.ResponseController) {
	if len(s.q.out) == 0 {
		return
	}
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if !s.begun {
		s.begun = true
		s.closeAfter()
		s.q.send(http.StatusOK, linesType)
	} else {
		_, _ = s.q.w.Write(s.q.out)
	}
	s.q.out = s.q.out[:0]
	_ = rc.Flush()
}

// closeAfter keeps net/http from taking what is left of a body for the next
// request, which full duplex would let happen when the body is given up. The
// head is sent before anybody knows that, so that only a body that was read to
// its end keeps its connection.
func (s *stream) closeAfter() {
	if !s.keepsConnection() && s.q.r.ProtoMajor == 1 {
		s.q.w.Header().Set("Connection", "close")
	}
}

// end sends the last line, or says why there is none.
func (s *stream) end(err error, rc *http.ResponseController) error {
	if err != nil {
		return s.fail(err, rc)
	}
	q := s.q
	q.out = strconv.AppendUint(append(q.out, `{"accepted":`...), s.accepted, 10)
	q.out = strconv.AppendUint(append(q.out, `,"refused":`...), s.refused, 10)
	q.out = append(q.out, '}', '\n')
	s.flush(rc)
	return nil
}

// fail ends the answer with an error line, or gives the error back to be
// answered with its own status when nothing was answered yet.
func (s *stream) fail(err error, rc *http.ResponseController) error {
	q := s.q
	if !s.begun && len(q.out) == 0 {
		s.closeAfter()
		if q.h.closing.Err() != nil {
			return errClosing
		}
		return err
	}
	e := asError(err)
	if q.h.closing.Err() != nil {
		e = errClosing
	}
	if e.Code == sluice.Internal {
		q.h.o.Failed(err)
	}
	q.out = append(q.appendError(append(q.out, `{"error":{`...), e), '}', '}', '\n')
	s.flush(rc)
	return nil
}
