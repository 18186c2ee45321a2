package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"net/netip"
	"sync/atomic"

	"sluice.dev/sluice"
	"sluice.dev/sluice/internal/schema"
)

// Auth tells who a caller is. It follows reloads: it asks for the schema in
// force each time and reads the clients again when that is another one. Both
// doors share one Auth. It is safe for concurrent use.
type Auth struct {
	schema func() *schema.Schema
	known  atomic.Pointer[clientList]
}

// clientList is the clients of one schema, never changed after it was made.
type clientList struct {
	of        *schema.Schema
	clients   []knownClient
	anonymous *Principal
}

type knownClient struct {
	token     [sha256.Size]byte
	hasToken  bool
	certName  string
	principal *Principal
}

// Principal is an authenticated caller and what it may do.
type Principal struct {
	Name        string // of the client in the config; "" when no clients are configured
	MaxPriority string // "": no bound

	read, write, admin bool
	tables             map[string]struct{} // nil: all
	list               *clientList         // the config that this was read from
	client             int                 // index into list.clients; -1: anonymous
}

// NewAuth makes an Auth over the clients of whatever schema is in force.
func NewAuth(inForce func() *schema.Schema) *Auth { return &Auth{schema: inForce} }

func (a *Auth) list() *clientList {
	s := a.schema()
	if l := a.known.Load(); l != nil && l.of == s {
		return l
	}
	// Two callers may both build the list after a reload; the lists are equal.
	l := newClientList(s)
	a.known.Store(l)
	return l
}

func newClientList(s *schema.Schema) *clientList {
	l := &clientList{of: s}
	l.anonymous = &Principal{read: true, write: true, admin: true, list: l, client: -1}
	for name, c := range s.Clients {
		p := &Principal{Name: name, MaxPriority: c.MaxPriority, read: c.Read, write: c.Write, admin: c.Admin, list: l, client: len(l.clients)}
		if c.Tables != nil {
			p.tables = make(map[string]struct{}, len(c.Tables))
			for _, t := range c.Tables {
				p.tables[t] = struct{}{}
			}
		}
		l.clients = append(l.clients, knownClient{
			token: sha256.Sum256([]byte(c.Token)), hasToken: c.Token != "", certName: c.CertName, principal: p})
	}
	return l
}

// Open tells whether no clients are configured, so that everybody on this
// machine may do everything.
func (a *Auth) Open() bool { return len(a.list().clients) == 0 }

// Token finds the client with this token. Hashes are compared, and all of
// them, so that the time taken tells neither length, nor prefix, nor which
// client it was.
func (a *Auth) Token(token string) (*Principal, error) {
	l, hash := a.list(), sha256.Sum256([]byte(token))
	found := -1
	for i := range l.clients {
		c := &l.clients[i]
		if subtle.ConstantTimeCompare(c.token[:], hash[:]) == 1 && c.hasToken {
			found = i
		}
	}
	if found < 0 {
		return nil, sluice.Errorf(sluice.Denied, "unauthenticated", "no client has this token; see `clients` in the config")
	}
	return l.clients[found].principal, nil
}

// NamedToken is Token for doors that also say a name (RESP: AUTH name token).
func (a *Auth) NamedToken(name, token string) (*Principal, error) {
	p, err := a.Token(token)
	if err != nil {
		return nil, err
	}
	if p.Name != name {
		return nil, sluice.Errorf(sluice.Denied, "unauthenticated", "no client has this name and token; see `clients` in the config")
	}
	return p, nil
}

// Certificate finds the client of a verified client certificate by its common name.
func (a *Auth) Certificate(state *tls.ConnectionState) (*Principal, error) {
	if state == nil || len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return nil, errUnauthenticated()
	}
	name := state.PeerCertificates[0].Subject.CommonName
	l := a.list()
	for i := range l.clients {
		if c := &l.clients[i]; c.certName != "" && c.certName == name {
			return c.principal, nil
		}
	}
	return nil, sluice.Errorf(sluice.Denied, "unauthenticated", "no client has the certificate name %.80q; add `cert` to a client in the config", name)
}

// Anonymous answers who a caller without token and certificate is: one with all
// rights when no clients are configured and it is on this machine, else nobody.
func (a *Auth) Anonymous(remote string) (*Principal, error) {
	l := a.list()
	if len(l.clients) > 0 {
		return nil, errUnauthenticated()
	}
	if !isLoopback(remote) {
		return nil, sluice.Errorf(sluice.Denied, "unauthenticated", "callers from other machines need a client; add `clients` to the config")
	}
	return l.anonymous, nil
}

// Current gives the rights that p has now. Doors with long connections ask it
// for each command, so that a reload that took a client's token or rights away
// holds at once. Without a reload it costs two loads.
func (a *Auth) Current(p *Principal) (*Principal, error) {
	l := a.list()
	if p.list == l {
		return p, nil
	}
	if p.client < 0 && len(l.clients) == 0 {
		return l.anonymous, nil
	}
	if p.client >= 0 {
		was := &p.list.clients[p.client]
		for i := range l.clients {
			c := &l.clients[i]
			if c.principal.Name == p.Name && c.token == was.token && c.certName == was.certName {
				return c.principal, nil
			}
		}
	}
	return nil, sluice.Errorf(sluice.Denied, "unauthenticated", "this client was taken out of the config or its token changed; authenticate again")
}

// isLoopback takes "address:port"; the empty address and "@" are those of Unix sockets.
func isLoopback(remote string) bool {
	if remote == "" || remote == "@" {
		return true
	}
	at, err := netip.ParseAddrPort(remote)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

func errUnauthenticated() error {
	return sluice.Errorf(sluice.Denied, "unauthenticated", "say who you are: a bearer token, AUTH, or a client certificate that the config names")
}

// MayWrite is nil when p may write to the table.
func (p *Principal) MayWrite(table string) error { return p.may(p.write, "write", table) }

// MayRead is nil when p may read the table.
func (p *Principal) MayRead(table string) error { return p.may(p.read, "read", table) }

// MayAdmin is nil when p may do what operators do.
func (p *Principal) MayAdmin() error { return p.may(p.admin, "administer", "") }

// AllTables tells whether p's rights are not bounded to some tables, so that
// the hot path need not look at each write.
func (p *Principal) AllTables() bool { return p.tables == nil }

// may checks a right; the empty table asks for the right alone.
func (p *Principal) may(right bool, verb, table string) error {
	if !right {
		return sluice.Errorf(sluice.Denied, "not_allowed", "client %q may not %s; `allow` of the client in the config says what it may do", p.Name, verb)
	}
	if p.tables == nil || table == "" {
		return nil
	}
	if _, ok := p.tables[table]; !ok {
		return sluice.Errorf(sluice.Denied, "not_allowed", "client %q may not %s table %.80q; `tables` of the client in the config lists its tables", p.Name, verb, table)
	}
	return nil
}

// IdentityKey scopes an idempotency key by the client's name, so that two
// clients may use the same key and neither learns what the other sent. Names
// hold no NUL.
func (p *Principal) IdentityKey(key string) (string, error) {
	scoped := p.Name + "\x00" + key
	if key == "" || len(scoped) > sluice.IdentityKeyBytesMax {
		return "", sluice.Errorf(sluice.Invalid, "bad_identity", "an idempotency key has 1 to %d bytes; this one has %d",
			sluice.IdentityKeyBytesMax-len(p.Name)-1, len(key))
	}
	return scoped, nil
}
