package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

func authOver(clients ...*schema.Client) (*Auth, *schema.Schema) {
	s := &schema.Schema{Clients: map[string]*schema.Client{}}
	for _, c := range clients {
		s.Clients[c.Name] = c
	}
	return NewAuth(func() *schema.Schema { return s }), s
}

func TestAuthRights(t *testing.T) {
	a, _ := authOver(
		&schema.Client{Name: "web", Token: "one", Read: true, Write: true, Tables: []string{"posts"}},
		&schema.Client{Name: "ops", Token: "two", Admin: true},
		&schema.Client{Name: "robot", CertName: "robot", Read: true})
	web, err := a.Token("one")
	if err != nil || web.Name != "web" {
		t.Fatalf("got %v, %v", web, err)
	}
	ops, _ := a.Token("two")
	for name, c := range map[string]struct {
		err error
		ok  bool
	}{
		"web writes posts": {web.MayWrite("posts"), true}, "web reads posts": {web.MayRead("posts"), true}, "web writes pages": {web.MayWrite("pages"), false},
		"web reads pages": {web.MayRead("pages"), false}, "web administers": {web.MayAdmin(), false}, "web writes": {web.MayWrite(""), true},
		"ops writes": {ops.MayWrite("posts"), false}, "ops reads": {ops.MayRead(""), false}, "ops administers": {ops.MayAdmin(), true},
	} {
		if (c.err == nil) != c.ok || c.err != nil && sluice.CodeOf(c.err) != sluice.Denied {
			t.Errorf("%s: %v", name, c.err)
		}
	}
	for _, token := range []string{"", "on", "ones", "three", "robot"} {
		if p, err := a.Token(token); err == nil {
			t.Errorf("token %q is %s's", token, p.Name)
		}
	}
	if _, err := a.NamedToken("ops", "one"); err == nil {
		t.Error("a token went with another's name")
	}
	if _, err := a.Anonymous("127.0.0.1:5"); err == nil {
		t.Error("with clients configured nobody is anonymous")
	}
}

func TestAuthAnonymousIsOnThisMachine(t *testing.T) {
	a, _ := authOver()
	for remote, ok := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "@": true, "": true,
		"10.0.0.1:80": false, "[2001:db8::1]:80": false, "localhost:80": false, "nonsense": false} {
		p, err := a.Anonymous(remote)
		if (err == nil) != ok || ok && (p.MayWrite("x") != nil || p.MayRead("x") != nil || p.MayAdmin() != nil) {
			t.Errorf("%q: %v, %v", remote, p, err)
		}
	}
}

// A reload changes what a client that is connected may do.
func TestAuthFollowsReloads(t *testing.T) {
	one := &schema.Client{Name: "web", Token: "one", Read: true, Write: true}
	s := &schema.Schema{Clients: map[string]*schema.Client{"web": one}}
	a := NewAuth(func() *schema.Schema { return s })
	web, _ := a.Token("one")
	if p, err := a.Current(web); p != web || err != nil {
		t.Fatalf("without a reload: %v, %v", p, err)
	}
	s = &schema.Schema{Clients: map[string]*schema.Client{"web": {Name: "web", Token: "one", Read: true}}}
	if p, err := a.Current(web); err != nil || p.MayWrite("") == nil || p.MayRead("") != nil {
		t.Fatalf("rights were taken away: %v, %v", p, err)
	}
	s = &schema.Schema{Clients: map[string]*schema.Client{"web": {Name: "web", Token: "new", Read: true}}}
	if p, err := a.Current(web); err == nil {
		t.Fatalf("the token changed: %v", p)
	}
	s = &schema.Schema{}
	if p, err := a.Current(web); err == nil {
		t.Fatalf("the client is gone: %v", p)
	}
	anonymous, _ := a.Anonymous("")
	s = &schema.Schema{Clients: map[string]*schema.Client{"web": one}}
	if p, err := a.Current(anonymous); err == nil {
		t.Fatalf("clients came: %v", p)
	}
}

func TestAuthIdentityKey(t *testing.T) {
	p := &Principal{Name: "web"}
	for key, ok := range map[string]bool{"": false, "k": true, strings.Repeat("k", 251): true, strings.Repeat("k", 252): false} {
		got, err := p.IdentityKey(key)
		if (err == nil) != ok || ok && got != "web\x00"+key {
			t.Errorf("%d bytes: %q, %v", len(key), got, err)
		}
	}
}

// makeCert writes a certificate and its key, signed by itself.
func makeCert(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestHTTPClientCertificates(t *testing.T) {
	dir := t.TempDir()
	cert, key := makeCert(t, dir, "door")
	robot, robotKey := makeCert(t, dir, "robot")
	stranger, strangerKey := makeCert(t, dir, "stranger")
	conf, err := TLSConfig(schema.Listen{CertFile: cert, KeyFile: key, ClientCA: robot})
	if err != nil {
		t.Fatal(err)
	}
	b := NewHTTPBackend(t, true)
	b.Change(func(s *schema.Schema) {
		s.Clients["robot"] = &schema.Client{Name: "robot", CertName: "robot", Read: true}
	})
	url := b.Serve(t, func(o *Options) { o.TLS = conf })
	roots := x509.NewCertPool()
	text, _ := os.ReadFile(cert)
	roots.AppendCertsFromPEM(text)
	get := func(certFile, keyFile, token string, h2 bool) (int, string, error) {
		c := &tls.Config{RootCAs: roots}
		if certFile != "" {
			pair, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: h2}
		defer transport.CloseIdleConnections()
		req, _ := http.NewRequest("GET", url+"/v1/status", nil)
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		h, err := transport.RoundTrip(req)
		if err != nil {
			return 0, "", err
		}
		h.Body.Close()
		return h.StatusCode, h.Proto, nil
	}
	for name, c := range map[string]struct {
		cert, key, token string
		h2               bool
		want             int
	}{
		"certificate": {robot, robotKey, "", false, 200}, "over HTTP/2": {robot, robotKey, "", true, 200},
		"token": {"", "", "web-token-0123456789abcdef", true, 200}, "nobody": {"", "", "", false, 401},
	} {
		status, proto, err := get(c.cert, c.key, c.token, c.h2)
		if err != nil || status != c.want || (proto == "HTTP/2.0") != c.h2 {
			t.Errorf("%s: got %d over %s, %v", name, status, proto, err)
		}
	}
	if status, _, err := get(stranger, strangerKey, "", false); err == nil && status != 401 {
		t.Errorf("a certificate of another CA got %d", status)
	}
}

// A renewed certificate is served without a restart; a half-written one is not.
func TestHTTPCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	cert, key := makeCert(t, dir, "door")
	files := &certFiles{cert: cert, key: key}
	first, err := files.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	look := func() *tls.Certificate {
		files.looked = time.Time{}
		got, err := files.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if err := os.WriteFile(cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chtimes(cert, later, later)
	if got := look(); got != first {
		t.Fatal("a half-written certificate replaced the good one")
	}
	makeCert(t, dir, "door")
	os.Chtimes(cert, later, later)
	if got := look(); got == first || got == nil {
		t.Fatal("the renewed certificate is not served")
	}
	if _, err := (&certFiles{cert: key, key: cert}).get(nil); err == nil {
		t.Fatal("swapped files were taken")
	}
}
