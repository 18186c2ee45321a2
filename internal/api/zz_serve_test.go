package api

import ("testing";"os";"net";"context";"time")

func TestZZServe(t *testing.T) {
	if os.Getenv("ZZ") == "" { t.Skip() }
	b := newRESPBackend(respTestSchema(t, respTestConfig))
	d, _ := NewRESP(RESPOptions{Writes: b, Reads: b, Admin: b, Version: "1.2.3"})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil { t.Fatal(err) }
	os.WriteFile("/tmp/zz.port", []byte(ln.Addr().String()), 0o644)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() { for { time.Sleep(50*time.Millisecond); if _, err := os.Stat("/tmp/zz.stop"); err == nil { cancel(); return } } }()
	d.Serve(ctx, ln)
}
