package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice.dev/sluice/internal/store/pgtest"
)

// startPgBouncer runs PgBouncer before a cluster and gives its port. As root
// it runs as the user of the cluster, since it refuses root too.
func startPgBouncer(t *testing.T, c *pgtest.Cluster, mode string) int {
	t.Helper()
	binary, err := exec.LookPath("pgbouncer")
	if err != nil {
		if binary = "/usr/sbin/pgbouncer"; !exists(binary) {
			t.Skip("PgBouncer is not installed (apt-get install pgbouncer)")
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir, err := os.MkdirTemp("", "sluice-bouncer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d user=postgres\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%d\nunix_socket_dir=\nauth_type=any\npool_mode=%s\ndefault_pool_size=3\n", c.Port, port, mode)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-q", file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(20 * time.Second); ; {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
			return port
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// Transactions of two shards share three server connections; nothing of one
// may be met by the other.
func TestPgBouncer(t *testing.T) {
	for _, mode := range []string{"transaction", "session"} {
		t.Run(mode, func(t *testing.T) {
			c := pgtest.Shared(t)
			port := startPgBouncer(t, c, mode)
			b := things(t, "ALTER TABLE things ADD CHECK (name <> 'bad')")
			b.url = strings.Replace(b.dsn, strconv.Itoa(c.Port), strconv.Itoa(port), 1)
			b.start()
			for i := range 20 {
				if i == 10 {
					b.shard.OnlyCopy()
				}
				b.apply("things", `"key":1,"add":{"n":1}`, `"key":2,"set":{"name":"two"}`)
			}
			if mode == "transaction" {
				b.want("SELECT count(*) FROM pg_prepared_statements", "0")
			}
			r := b.apply("things", `"key":1,"add":{"n":1}`, `"key":2,"set":{"name":"bad"}`)
			if len(r.Rejected) != 1 {
				t.Errorf("rejected %+v", r.Rejected)
			}
			b.want("SELECT id, n, name FROM things ORDER BY id", "1|21|∅\n2|∅|two")
			g := b.group("things")
			if err := b.shard.Confirm(b.ctx, b.cursors[g.ID]); err != nil {
				t.Error(err)
			}
			rows, cur, err := b.shard.Read(b.ctx, g, [][]byte{b.batch("things", `"key":1,"add":{"n":1}`).Entries[0].Key})
			if err != nil || rows[0].Values[0].Num != 21 || cur.Commit != 21 {
				t.Errorf("read %+v, %+v, %v", rows, cur, err)
			}
			// No setting stays behind on a server connection.
			conn, err := pgx.Connect(b.ctx, b.url+"&default_query_exec_mode=exec")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(b.ctx)
			var seqscan string
			if err := conn.QueryRow(b.ctx, "SHOW enable_seqscan").Scan(&seqscan); err != nil || seqscan != "on" {
				t.Errorf("enable_seqscan is %q, %v", seqscan, err)
			}
		})
	}
}

// TLS is what the URL says, checked to the name.
func TestTLS(t *testing.T) {
	c := pgtest.Start(t)
	cert := makeCertificate(t, c)
	c.Exec(t, c.DSN("postgres"), "ALTER SYSTEM SET ssl_cert_file = 'server.crt'", "ALTER SYSTEM SET ssl_key_file = 'server.key'", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
	b := newBenchOn(t, c, testConfig)
	b.until("SHOW ssl", "on")
	b.url = strings.Replace(b.dsn, "sslmode=disable", "sslmode=verify-full&sslrootcert="+cert, 1)
	b.start().apply("counters", `"key":1,"add":{"n":1}`)
	b.want("SELECT count(*) > 0 FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE s.ssl AND a.datname = current_database() AND a.application_name = 'sluice'", "t")
	b.url = strings.Replace(b.dsn, "sslmode=disable", "sslmode=verify-full", 1) // the system does not know this authority
	if err := b.open().ensure(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("Ensure trusted an unknown certificate: %v", err)
	}
}

// makeCertificate puts a self-signed certificate for 127.0.0.1 into the
// cluster's data folder and gives a file with it for the client.
func makeCertificate(t *testing.T, c *pgtest.Cluster) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(c.Dir, "data")
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"server.crt": crt, "server.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		file := filepath.Join(data, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(file, crt, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
