package schema

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// tokenBytesMin is the shortest token that may be used beyond loopback.
const tokenBytesMin = 16

var priorities = []string{"critical", "high", "normal", "low"}

func (c *Config) readListen(o *object) {
	l := &c.Listen
	*l = Listen{HTTP: "127.0.0.1:7070", RESP: "127.0.0.1:7071"}
	o.text("http", &l.HTTP)
	o.text("resp", &l.RESP)
	tls := o.object("tls")
	tls.text("cert", &l.CertFile)
	tls.text("key", &l.KeyFile)
	tls.text("client_ca", &l.ClientCA)
	tls.done()
	o.done()
	if o.has("tls") && (l.CertFile == "" || l.KeyFile == "") {
		o.r.add(o.at("tls"), "name both files", "listen.tls lacks its cert or its key")
	}
	l.CertFile, l.KeyFile, l.ClientCA = c.path(l.CertFile), c.path(l.KeyFile), c.path(l.ClientCA)
	for _, door := range []struct {
		name string
		addr *string
	}{{"http", &l.HTTP}, {"resp", &l.RESP}} {
		if *door.addr == "off" || *door.addr == "" {
			*door.addr = ""
			continue
		}
		if _, ok := isLoopback(*door.addr); !ok {
			o.r.add(o.at(door.name), "write HOST:PORT like 127.0.0.1:7070, or off", "listen.%s is no address", door.name)
			*door.addr = ""
		}
	}
	if l.HTTP != "" && l.HTTP == l.RESP && !strings.HasSuffix(l.HTTP, ":0") {
		o.r.add(o.at("resp"), "give each a port of its own", "listen.http and listen.resp are one address")
	}
}

// isLoopback tells whether only this machine reaches the address; ok is false
// when it is none. A name is not asked for its address: only localhost counts.
func isLoopback(addr string) (loopback, ok bool) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return false, false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback(), true
	}
	return host == "localhost", !strings.ContainsAny(host, " /@")
}

// beyondLoopback names the doors that other machines reach.
func (l *Listen) beyondLoopback() []string {
	var out []string
	for _, door := range [][2]string{{"listen.http", l.HTTP}, {"listen.resp", l.RESP}} {
		if loopback, _ := isLoopback(door[1]); door[1] != "" && !loopback {
			out = append(out, door[0])
		}
	}
	return out
}

func (c *Config) readClients(o *object) {
	c.Clients = map[string]*Client{}
	tokens, certs := map[string]string{}, map[string]string{}
	for _, name := range o.names {
		m := o.object(name)
		client := &Client{Name: name, Read: true, Write: true, MaxPriority: "critical"}
		if !isClientName(name) {
			o.r.add(o.at(name), "use letters, digits, _, - and ., at most 63", "%q is not a name for a client", name)
		}
		m.text("token", &client.Token)
		m.text("cert", &client.CertName)
		m.choice("max_priority", &client.MaxPriority, priorities...)
		readAllow(m, client)
		c.readClientTables(m, client)
		m.done()
		c.Clients[name] = client
		c.checkClient(m, client)
		for what, seen := range map[string]map[string]string{client.Token: tokens, client.CertName: certs} {
			if other, ok := seen[what]; ok && what != "" {
				o.r.add(o.at(name), "give each client its own", "clients %s and %s have the same token or certificate", other, name)
			}
			seen[what] = name
		}
	}
	if doors := c.Listen.beyondLoopback(); len(doors) > 0 && len(c.Clients) == 0 {
		o.r.add(o.at("clients"), "add `clients: {name: {token: \"${TOKEN}\"}}`, or listen on 127.0.0.1", "other machines reach %s, but there are no clients", strings.Join(doors, " and "))
	}
}

func (c *Config) checkClient(m *object, client *Client) {
	switch {
	case !m.has("token") && !m.has("cert"):
		m.r.add(m.place, "give it `token: \"${TOKEN}\"` or `cert: NAME`", "%s has neither a token nor a certificate", m.path)
	case client.CertName != "" && c.Listen.ClientCA == "":
		m.r.add(m.at("cert"), "set listen.tls.client_ca", "%s comes with a certificate, but none are asked for", m.path)
	case m.has("token") && client.Token == "" && m.value["token"].Tag != faultyTag:
		m.r.add(m.at("token"), "set it", "the token of %s is empty", m.path)
	case client.Token != "" && len(client.Token) < tokenBytesMin && len(c.Listen.beyondLoopback()) > 0:
		m.r.add(m.at("token"), "make one with `openssl rand -hex 32`", "the token of %s is shorter than %d characters and other machines can try it", m.path, tokenBytesMin)
	}
}

func readAllow(m *object, client *Client) {
	n := m.get("allow")
	if n == nil {
		return
	}
	client.Read, client.Write = false, false
	words, nodes := m.r.list(n, m.member("allow"))
	for i, word := range words {
		switch word {
		case "read":
			client.Read = true
		case "write":
			client.Write = true
		case "admin":
			client.Admin = true
		default:
			m.r.add(at(nodes[i]), "write read, write or admin", "%s is not a right", m.r.show(nodes[i]))
		}
	}
}

func (c *Config) readClientTables(m *object, client *Client) {
	n := m.get("tables")
	if n == nil {
		return
	}
	client.Tables = []string{}
	var known []string
	for _, t := range c.Tables {
		known = append(known, t.Name)
	}
	words, nodes := m.r.list(n, m.member("tables"))
	for i, word := range words {
		if slices.Contains(client.Tables, word) {
			m.r.add(at(nodes[i]), "remove one of them", "%s names %s twice", m.path, m.r.show(nodes[i]))
		}
		if !slices.Contains(known, word) {
			m.r.add(at(nodes[i]), oneOf(word, known), "client %s is allowed %s, which is not a table", client.Name, m.r.show(nodes[i]))
		}
		client.Tables = append(client.Tables, word)
	}
}

func isClientName(name string) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_-.", c) {
			return false
		}
	}
	return name != "" && len(name) <= nameBytesMax
}
