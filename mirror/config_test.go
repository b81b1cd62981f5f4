package mirror

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/raftfsm"
)

func TestEtcdIsCheckedInTermsOfFlags(t *testing.T) {
	for name, c := range map[string]struct {
		etcd Etcd
		want string // part of the error; empty for none
	}{
		"none":                      {Etcd{}, ""},
		"one":                       {Etcd{Endpoints: []string{"10.0.0.1:2379"}}, ""},
		"several":                   {Etcd{Endpoints: []string{"10.0.0.1:2379", "[::1]:2379", "etcd:2379"}}, ""},
		"with https":                {Etcd{Endpoints: []string{"https://etcd:2379"}}, ""},
		"with http":                 {Etcd{Endpoints: []string{"http://etcd:2379"}}, ""},
		"with all":                  {Etcd{Endpoints: []string{"etcd:2379"}, User: "u", PasswordFile: "p", CAFile: "c", CertFile: "c", KeyFile: "k"}, ""},
		"a user and no endpoint":    {Etcd{User: "u"}, "--etcd-user says how to reach an etcd"},
		"no port":                   {Etcd{Endpoints: []string{"etcd"}}, "number 1 is not HOST:PORT"},
		"no host":                   {Etcd{Endpoints: []string{"etcd:1", ":2379"}}, "number 2 is not HOST:PORT"},
		"another scheme":            {Etcd{Endpoints: []string{"etcd://host:2379"}}, "number 1 is not HOST:PORT"},
		"a path":                    {Etcd{Endpoints: []string{"http://host:2379/v3"}}, "number 1 is not HOST:PORT"},
		"a password":                {Etcd{Endpoints: []string{"http://u:hush@host:2379"}}, "--etcd-user"},
		"http and https":            {Etcd{Endpoints: []string{"http://a:1", "https://b:1"}}, "want one or the other"},
		"http and certificates":     {Etcd{Endpoints: []string{"http://a:1"}, CAFile: "c"}, "want one or the other"},
		"a user without password":   {Etcd{Endpoints: []string{"a:1"}, User: "u"}, "go together"},
		"a password without a user": {Etcd{Endpoints: []string{"a:1"}, PasswordFile: "p"}, "go together"},
		"a key without certificate": {Etcd{Endpoints: []string{"a:1"}, KeyFile: "k"}, "go together"},
	} {
		err := c.etcd.Validate()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows a password: %v", name, err)
		}
	}
}

func TestFilesAreReadAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty, text := filepath.Join(dir, "empty"), filepath.Join(dir, "text")
	for path, content := range map[string]string{empty: "\n", text: "no PEM"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing")
	for name, c := range map[string]struct {
		change func(*Etcd)
		want   string
	}{
		"no password file":    {func(e *Etcd) { e.User, e.PasswordFile = "u", missing }, "--etcd-password-file: open "},
		"empty password file": {func(e *Etcd) { e.User, e.PasswordFile = "u", empty }, "is empty"},
		"no CA file":          {func(e *Etcd) { e.CAFile = missing }, "--etcd-ca-file: open "},
		"no certificate":      {func(e *Etcd) { e.CAFile = text }, "holds no certificate in PEM"},
		"no key":              {func(e *Etcd) { e.CertFile, e.KeyFile = text, missing }, "--etcd-cert-file, --etcd-key-file: "},
	} {
		etcd := Etcd{Endpoints: []string{"127.0.0.1:2379"}}
		c.change(&etcd)
		if _, err := New(Config{Etcd: etcd, Log: slog.New(slog.DiscardHandler)}, simulate(), raftfsm.New()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// certificates are files of an authority, of an etcd on 127.0.0.1, and of a client.
type certificates struct {
	ca             string
	pool           *x509.CertPool
	server, client struct{ cert, key string }
}

func newCertificates(t *testing.T) certificates {
	t.Helper()
	dir := t.TempDir()
	serial := int64(0)
	write := func(name, kind string, raw []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sign := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey, usage x509.ExtKeyUsage) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		serial++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		if parent == nil {
			template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
			parent, by = template, key
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key, write(name+".pem", "CERTIFICATE", raw), write(name+".key", "EC PRIVATE KEY", der)
	}
	var c certificates
	var ca *x509.Certificate
	var by *ecdsa.PrivateKey
	ca, by, c.ca, _ = sign("authority", nil, nil, x509.ExtKeyUsageAny)
	c.pool = x509.NewCertPool()
	c.pool.AddCert(ca)
	// etcd's own gateway uses the server's certificate as a client.
	_, _, c.server.cert, c.server.key = sign("etcd", ca, by, x509.ExtKeyUsageServerAuth)
	_, _, c.client.cert, c.client.key = sign("wasmatrix-node", ca, by, x509.ExtKeyUsageClientAuth)
	return c
}
