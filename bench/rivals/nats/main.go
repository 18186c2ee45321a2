// Command nats is an embedded NATS JetStream that syncs before each answer, and
// the consumer that a team would write behind it: it folds what it fetched,
// brings it into PostgreSQL in one transaction and acknowledges it then.
// README.md gives the reason for each setting.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice.dev/sluice/bench/rivals/batch"
)

const (
	stream    = "writes"
	fetchMax  = 5000
	fetchWait = 20 * time.Millisecond
	readyMax  = 30 * time.Second
)

func main() {
	dir := flag.String("dir", "", "where the stream is kept")
	url := flag.String("postgres", "", "URL of the database")
	flag.Parse()
	if err := run(context.Background(), *dir, *url); err != nil {
		fmt.Fprintln(os.Stderr, "nats:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, url string) error {
	s, err := server.NewServer(&server.Options{ServerName: "rival", Host: "127.0.0.1", Port: server.RANDOM_PORT,
		JetStream: true, StoreDir: dir, SyncAlways: true, NoSigs: true})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(readyMax) {
		return errors.New("the server is not ready")
	}
	consumer, err := ensure(ctx, s)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"addr": s.Addr().String()}); err != nil {
		return err
	}
	for {
		if err := step(ctx, consumer, conn); err != nil {
			return err
		}
	}
}

func ensure(ctx context.Context, s *server.Server) (jetstream.Consumer, error) {
	nc, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	st, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{"w"},
		Storage: jetstream.FileStorage, Duplicates: 2 * time.Minute})
	if err != nil {
		return nil, err
	}
	return st.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{Durable: "postgres", AckPolicy: jetstream.AckAllPolicy,
		AckWait: 5 * time.Second, MaxAckPending: 4 * fetchMax})
}

// step moves one batch. The last message's acknowledgement stands for all before it.
func step(ctx context.Context, consumer jetstream.Consumer, conn *pgx.Conn) error {
	got, err := consumer.FetchNoWait(fetchMax)
	if err != nil {
		return err
	}
	fold := batch.NewFold()
	var last jetstream.Msg
	for m := range got.Messages() {
		w, err := parse(m.Data())
		if err != nil {
			return err
		}
		fold.Add(w)
		last = m
	}
	if err := got.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
		return err
	}
	if last == nil {
		time.Sleep(fetchWait)
		return nil
	}
	if err := fold.Apply(ctx, conn); err != nil {
		return err
	}
	return last.DoubleAck(ctx)
}

// parse reads "L 42 7": kind, key and number.
func parse(text []byte) (w batch.Write, err error) {
	f := strings.Fields(string(text))
	if len(f) != 3 || len(f[0]) != 1 {
		return w, fmt.Errorf("unknown message %q", text)
	}
	w.Kind = batch.Kind(f[0][0])
	var kerr error
	w.Key, kerr = strconv.ParseUint(f[1], 10, 63)
	w.N, err = strconv.ParseUint(f[2], 10, 63)
	return w, errors.Join(kerr, err)
}
