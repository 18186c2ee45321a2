package api

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"sluice.dev/sluice/internal/schema"
)

// TLSConfig reads the certificate files of a door; nil when it has none.
func TLSConfig(l schema.Listen) (*tls.Config, error) {
	if l.CertFile == "" {
		return nil, nil
	}
	certs := &certFiles{cert: l.CertFile, key: l.KeyFile}
	if _, err := certs.get(nil); err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.get}
	if l.ClientCA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(l.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("read client CA: %w", err)
	}
	conf.ClientCAs = x509.NewCertPool()
	if !conf.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client CA %s holds no certificate; it must be PEM", l.ClientCA)
	}
	// Clients with tokens come without a certificate; who has one must prove it.
	conf.ClientAuth = tls.VerifyClientCertIfGiven
	return conf, nil
}

// certFiles serves a certificate that is renewed in place: the files are looked
// at again when a handshake comes and certLookInterval has passed.
type certFiles struct {
	cert, key string

	mu     sync.Mutex
	looked time.Time
	stamp  time.Time // modification time of the certificate that is held
	held   *tls.Certificate
}

const certLookInterval = 10 * time.Second

// get keeps the held certificate when the new files do not fit together: they
// may be half written, and the next look will find them whole.
func (f *certFiles) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.held != nil && now.Sub(f.looked) < certLookInterval {
		return f.held, nil
	}
	f.looked = now
	info, err := os.Stat(f.cert)
	if err == nil && f.held != nil && info.ModTime().Equal(f.stamp) {
		return f.held, nil
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	switch {
	case err == nil:
		f.held, f.stamp = &pair, info.ModTime()
	case f.held == nil:
		return nil, fmt.Errorf("read TLS certificate %s with key %s: %w", f.cert, f.key, err)
	}
	return f.held, nil
}
