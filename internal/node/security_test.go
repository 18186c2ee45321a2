package node_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/node"
)

const secureConfig = `
listen: {http: "127.0.0.1:0", resp: "127.0.0.1:0", tls: {cert: "DIR/server.pem", key: "DIR/server.key", client_ca: "DIR/ca.pem"}}
journal: {dir: "DIR/journal", segment_bytes: 1MiB, disk_reserve: 1MiB}
stores: {local: "sqlite:DIR/app.db"}
clients:
  web:   {token: "web-token-0123456789", allow: [read, write], tables: [posts]}
  robot: {cert: robot, allow: [write]}
  ops:   {token: "ops-token-0123456789", allow: [admin]}
tables:
  posts: {key: {id: int64}, store: local, flush: 10ms, columns: {likes: int64 sum}}
  pages: {key: {id: int64}, store: local, flush: 10ms, columns: {likes: int64 sum}}
`

// authority signs the certificates of a test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	next int64
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{dir: dir, pool: x509.NewCertPool()}
	a.cert, a.key = a.sign(t, "ca", nil)
	a.pool.AddCert(a.cert)
	return a
}

// sign makes NAME.pem and NAME.key.
func (a *authority) sign(t *testing.T, name string, by *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.next++
	c := &x509.Certificate{SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: by == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made, key
}

// tls is a client's side, with a certificate of that name unless "".
func (a *authority) tls(t *testing.T, name string) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: a.pool, MinVersion: tls.VersionTLS12}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// secure runs a node with TLS; its readiness is asked for over TLS too.
func secure(t *testing.T) (*node.Node, *authority) {
	t.Helper()
	file := writeConfig(t, secureConfig)
	a := newAuthority(t, filepath.Dir(file))
	for _, name := range []string{"server", "robot", "stranger"} {
		a.sign(t, name, a)
	}
	n, _ := run(t, file)
	c := a.dial(t, n, "web-token-0123456789", "")
	until(t, "ready", func() bool { return c.Ready(t.Context()) == nil })
	return n, a
}

func (a *authority) dial(t *testing.T, n *node.Node, token, cert string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{URL: "https://" + n.HTTPAddr(), Token: token, TLS: a.tls(t, cert), RetryBudget: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Who may do what, at both doors: each right by token and by certificate.
func TestRightsHoldAtBothDoors(t *testing.T) {
	n, a := secure(t)
	for _, who := range []struct {
		name, token, cert                             string
		writePosts, writePages, readPosts, administer bool
	}{
		{"web", "web-token-0123456789", "", true, false, true, false},
		{"robot", "", "robot", true, true, false, false},
		{"ops", "ops-token-0123456789", "", false, false, false, true},
		{"a wrong token", "web-token-012345678x", "", false, false, false, false},
		{"an unknown certificate", "", "stranger", false, false, false, false},
		{"nobody", "", "", false, false, false, false},
	} {
		c := a.dial(t, n, who.token, who.cert)
		check := func(what string, err error, allowed bool) {
			t.Helper()
			if (err == nil) != allowed || err != nil && sluice.CodeOf(err) != sluice.Denied {
				t.Errorf("HTTP: %s %s: %v", who.name, what, err)
			}
		}
		_, err := c.WriteMany(t.Context(), []sluice.Write{add("posts", 1, "likes", 1)}, client.WriteOptions{})
		check("writes posts", err, who.writePosts)
		_, err = c.WriteMany(t.Context(), []sluice.Write{add("pages", 1, "likes", 1)}, client.WriteOptions{})
		check("writes pages", err, who.writePages)
		_, err = c.ReadMany(t.Context(), "posts", []any{1}, client.ReadOptions{})
		check("reads posts", err, who.readPosts)
		_, err = c.Rejects(t.Context(), client.RejectsQuery{})
		check("lists rejects", err, who.administer)

		r := a.redis(t, n, who.cert)
		if who.token != "" {
			r.do("AUTH", who.token)
		}
		for command, allowed := range map[string]bool{"HINCRBY posts:1 likes 1": who.writePosts, "HINCRBY pages:1 likes 1": who.writePages, "HGET posts:1 likes": who.readPosts} {
			if got := r.do(strings.Fields(command)...); strings.HasPrefix(got, "-") == allowed || !allowed && !strings.HasPrefix(got, "-NOAUTH") && !strings.HasPrefix(got, "-NOPERM") {
				t.Errorf("RESP: %s, %s: %s", who.name, command, got)
			}
		}
	}
}

func TestDoorsSpeakTLSOnly(t *testing.T) {
	n, a := secure(t)
	plain, err := client.New(client.Options{URL: "http://" + n.HTTPAddr(), Token: "web-token-0123456789", RetryBudget: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Status(t.Context()); err == nil {
		t.Error("HTTP answers without TLS")
	}
	other := newAuthority(t, t.TempDir())
	wrong, err := client.New(client.Options{URL: "https://" + n.HTTPAddr(), Token: "web-token-0123456789", TLS: &tls.Config{RootCAs: other.pool}, RetryBudget: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer wrong.Close()
	if _, err := wrong.Status(t.Context()); err == nil {
		t.Error("a client takes a server that its authority did not sign")
	}
	forged := other.dir
	other.sign(t, "robot", other)
	pair, err := tls.LoadX509KeyPair(filepath.Join(forged, "robot.pem"), filepath.Join(forged, "robot.key"))
	if err != nil {
		t.Fatal(err)
	}
	config := a.tls(t, "")
	config.Certificates = []tls.Certificate{pair}
	forger, err := client.New(client.Options{URL: "https://" + n.HTTPAddr(), TLS: config, RetryBudget: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	if _, err := forger.WriteMany(t.Context(), []sluice.Write{add("posts", 1, "likes", 1)}, client.WriteOptions{}); err == nil {
		t.Error("a certificate of another authority with a known name is taken")
	}
}

// redis is the RESP door as a client with a socket sees it.
type redis struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (a *authority) redis(t *testing.T, n *node.Node, cert string) *redis {
	t.Helper()
	conn, err := tls.Dial("tcp", n.RESPAddr(), a.tls(t, cert))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &redis{t, conn, bufio.NewReader(conn)}
}

// do sends a command and gives the first line of its answer.
func (r *redis) do(args ...string) string {
	r.t.Helper()
	text := fmt.Sprintf("*%d\r\n", len(args))
	for _, arg := range args {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := r.conn.Write([]byte(text)); err != nil {
		return "-closed " + err.Error()
	}
	line, err := r.in.ReadString('\n')
	if err != nil {
		return "-closed " + err.Error()
	}
	if strings.HasPrefix(line, "$") && !strings.HasPrefix(line, "$-1") {
		line, _ = r.in.ReadString('\n')
	}
	return strings.TrimSpace(line)
}
