package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"sluice.dev/sluice"
)

// TestRESPGoRedis lets the most used Go client do what its users do, in both protocols.
func TestRESPGoRedis(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		b := newRESPBackend(respTestSchema(t, respTestConfig+respTestClients))
		_, addr := serveRESP(t, b, nil)
		rdb := redis.NewClient(&redis.Options{Addr: addr, Username: "web", Password: "web-token-0123456789abcdef", ClientName: "shop",
			Protocol: protocol, MaxRetries: -1, MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
		t.Cleanup(func() { rdb.Close() })
		ctx := context.Background()
		must := func(got any, err error, want any) {
			t.Helper()
			if err != nil || got != want {
				t.Fatalf("protocol %d: got %v, %v, want %v", protocol, got, err, want)
			}
		}
		n, err := rdb.HIncrBy(ctx, "posts:42", "likes", 3).Result()
		must(n, err, int64(3))
		x, err := rdb.HIncrByFloat(ctx, "posts:42", "cost", 1.5).Result()
		must(x, err, 1.5)
		n, err = rdb.HSet(ctx, "posts:42", "content", "hi", "user_id", 7).Result()
		must(n, err, int64(2))
		n, err = rdb.PFAdd(ctx, "posts.viewers:42", "ann", "bob").Result()
		must(n, err, int64(1))
		id, err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: "posts.analytics:42", Values: []any{"event_type", "view"}}).Result()
		must(id, err, "7-1")
		all, err := rdb.HGetAll(ctx, "posts:42").Result()
		must(len(all), err, 5)
		must(all["likes"], nil, "3")
		text, err := rdb.HGet(ctx, "posts:42", "content").Result()
		must(text, err, "hi")
		_, err = rdb.HGet(ctx, "posts:43", "content").Result()
		must(err, nil, redis.Nil)
		n, err = rdb.PFCount(ctx, "posts.viewers:42").Result()
		must(n, err, int64(2))
		n, err = rdb.Wait(ctx, 1, time.Second).Result()
		must(n, err, int64(1))
		n, err = rdb.Del(ctx, "posts:42", "posts:44").Result()
		must(n, err, int64(2))
		if info, err := rdb.Info(ctx, "server").Result(); err != nil || !strings.Contains(info, "sluice_version:1.2.3") {
			t.Errorf("INFO: %q, %v", info, err)
		}
		if commands, err := rdb.Command(ctx).Result(); err != nil || commands["hincrby"] == nil {
			t.Errorf("COMMAND: %v", err)
		}
	}
}

// A client library that retries by itself must not be led to double a write:
// it sends a pipeline again as a whole when it knows the prefix of an error.
func TestRESPGoRedisDoesNotRetryRefusals(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	b.refuse["posts:1"] = sluice.BacklogMax
	_, addr := serveRESP(t, b, nil)
	rdb := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: 3})
	defer rdb.Close()
	commands, err := rdb.Pipelined(context.Background(), func(p redis.Pipeliner) error {
		p.HIncrBy(context.Background(), "posts:1", "likes", 1)
		p.HIncrBy(context.Background(), "posts:2", "likes", 1)
		return nil
	})
	if err == nil || !strings.HasPrefix(err.Error(), "BUSY backlog_max 1000") || commands[1].Err() != nil {
		t.Errorf("refused and accepted: %v, %v", err, commands[1].Err())
	}
	if got := b.takeEntries(); len(got) != 1 {
		t.Errorf("one write became %q", got)
	}
}

func TestRESPGoRedisTransactionWritesNothing(t *testing.T) {
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	_, addr := serveRESP(t, b, nil)
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	defer rdb.Close()
	_, err := rdb.TxPipelined(context.Background(), func(p redis.Pipeliner) error {
		p.HIncrBy(context.Background(), "posts:1", "likes", 1)
		return nil
	})
	if err == nil {
		t.Error("a transaction was taken")
	}
	if got := b.takeEntries(); len(got) != 0 {
		t.Errorf("the client was told that its transaction failed, but %q was written", got)
	}
}

func respTestCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
