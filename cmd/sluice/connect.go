package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice"
	"sluice.dev/sluice/client"
	"sluice.dev/sluice/internal/schema"
)

// defaultURL is where a server listens whose config says nothing.
const defaultURL = "http://127.0.0.1:7070"

// once is a client's budget for a command at the terminal: who waits there
// rather sees at once that the server is down.
const once = -time.Nanosecond

// client makes a client that tries each request once.
func (p *program) client() (*client.Client, error) { return p.clientTrying(once) }

// clientTrying makes a client that tries each request for so long.
func (p *program) clientTrying(budget time.Duration) (*client.Client, error) {
	at, err := p.serverURL()
	if err != nil {
		return nil, err
	}
	p.at = at
	token := p.token
	if token == "" {
		token = p.env("SLUICE_TOKEN")
	}
	o := client.Options{URL: at, Token: token, RetryBudget: budget}
	if o.TLS, err = p.tls(); err != nil {
		return nil, err
	}
	c, err := client.New(o)
	if err != nil {
		return nil, usage("%v", err)
	}
	return c, nil
}

// serverURL is --url, $SLUICE_URL, or the config's listen.http.
func (p *program) serverURL() (string, error) {
	if p.url != "" {
		return withScheme(p.url), nil
	}
	if at := p.env("SLUICE_URL"); at != "" {
		return withScheme(at), nil
	}
	file, asked := p.configFile()
	if !asked && !exists(file) {
		return defaultURL, nil
	}
	config, err := p.readConfig()
	if err != nil {
		return "", fmt.Errorf("where is the server? --url or SLUICE_URL say it without the config, which has faults:\n%w", err)
	}
	return doorURL(config)
}

func withScheme(at string) string {
	if strings.Contains(at, "://") {
		return at
	}
	return "http://" + at
}

// doorURL makes a URL of listen.http. An address of all interfaces is asked on
// the loopback one.
func doorURL(config *schema.Config) (string, error) {
	addr := config.Listen.HTTP
	if addr == "" || addr == "off" {
		return "", fmt.Errorf("%s closes the HTTP door (listen.http), which this command needs; open it, or name another server with --url", config.File)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%s: listen.http %q: %w", config.File, addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if config.Listen.CertFile != "" {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port), nil
}

// readConfig reads and checks the config; the error lists every fault.
func (p *program) readConfig() (*schema.Config, error) {
	file, _ := p.configFile()
	config, faults := schema.Load(file, p.Env)
	if len(faults) > 0 {
		return nil, faults
	}
	return config, nil
}

func sortedStores(config *schema.Config) []*schema.Store {
	stores := make([]*schema.Store, 0, len(config.Stores))
	for _, s := range config.Stores {
		stores = append(stores, s)
	}
	slices.SortFunc(stores, func(a, b *schema.Store) int { return strings.Compare(a.Name, b.Name) })
	return stores
}

// tls reads --cacert, --cert and --key; nil when none is given.
func (p *program) tls() (*tls.Config, error) {
	if p.cacert == "" && p.cert == "" && p.key == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if p.cacert != "" {
		text, err := os.ReadFile(p.cacert)
		if err != nil {
			return nil, fmt.Errorf("--cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--cacert %s holds no certificate in PEM form", p.cacert)
		}
	}
	if p.cert != "" || p.key != "" {
		if p.cert == "" || p.key == "" {
			return nil, usage("--cert and --key go together")
		}
		pair, err := tls.LoadX509KeyPair(p.cert, p.key)
		if err != nil {
			return nil, fmt.Errorf("--cert and --key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// unreachable gives a code and a cure to an error of the network.
func (p *program) unreachable(err error) error {
	var e *sluice.Error
	var broken *url.Error
	if err == nil || errors.As(err, &e) || !errors.As(err, &broken) || p.at == "" {
		return err
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%s shows a certificate that nobody here knows: %w; --cacert names the authority that made it", p.at, broken.Err)
	}
	return sluice.Errorf(sluice.Unavailable, "unreachable", "no answer from %s: %w; is the server running? `sluice serve` starts it, --url names another", p.at, broken.Err)
}
