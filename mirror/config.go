package mirror

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

const (
	// callTimeout is how long one answer of etcd may take. Nobody waits for it but the mirror.
	callTimeout = 3 * time.Second
	// pingEvery and pingTimeout find a connection that is cut: etcd refuses pings that come more often than each 5 s.
	pingEvery   = 10 * time.Second
	pingTimeout = 3 * time.Second
)

// Config is what a mirror is told.
type Config struct {
	Etcd Etcd

	Log *slog.Logger
	// May be nil: then there are no metrics.
	Registerer prometheus.Registerer

	dialOptions []grpc.DialOption // of tests, which spoil calls
}

// Etcd says where an etcd is and how it knows us.
type Etcd struct {
	// HOST:PORT of its members, or with http:// or https:// before it; none for no mirror.
	Endpoints []string
	// Empty where it asks for no user. The password is in a file, which is read at each connection.
	User         string
	PasswordFile string
	// PEM files, read at each connection. Any of them, or https://, makes the connection use TLS: without a CAFile,
	// those whom the host trusts are trusted.
	CAFile   string
	CertFile string
	KeyFile  string
}

// Validate says what is wrong, in terms of the flags that set it.
func (e Etcd) Validate() error {
	if len(e.Endpoints) == 0 {
		for _, other := range []struct{ flag, value string }{
			{"--etcd-user", e.User}, {"--etcd-password-file", e.PasswordFile},
			{"--etcd-ca-file", e.CAFile}, {"--etcd-cert-file", e.CertFile}, {"--etcd-key-file", e.KeyFile},
		} {
			if other.value != "" {
				return fmt.Errorf("%s says how to reach an etcd, and --etcd-endpoints says none", other.flag)
			}
		}
		return nil
	}
	var errs []error
	var plain, secure bool
	for n, endpoint := range e.Endpoints {
		scheme, addr, ok := strings.Cut(endpoint, "://")
		if !ok {
			scheme, addr = "", endpoint
		}
		plain = plain || scheme == "http"
		secure = secure || scheme == "https"
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" || strings.ContainsAny(addr, "@/?#") || ok && scheme != "http" && scheme != "https" {
			// It may hold a password, so it is not shown.
			errs = append(errs, fmt.Errorf("--etcd-endpoints: number %d is not HOST:PORT; a user goes into --etcd-user", n+1))
		}
	}
	if plain && (secure || e.CAFile+e.CertFile+e.KeyFile != "") {
		errs = append(errs, errors.New("--etcd-endpoints has http://, and others ask for TLS: want one or the other"))
	}
	if (e.User == "") != (e.PasswordFile == "") {
		errs = append(errs, errors.New("--etcd-user and --etcd-password-file go together"))
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		errs = append(errs, errors.New("--etcd-cert-file and --etcd-key-file go together"))
	}
	return errors.Join(errs...)
}

// client returns a client that has not connected yet, except where etcd asks for a user.
func (c Config) client(ctx context.Context) (*clientv3.Client, error) {
	password, err := c.Etcd.password()
	if err != nil {
		return nil, err
	}
	secure, err := c.Etcd.tls()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Context: ctx, Endpoints: c.Etcd.Endpoints, Username: c.Etcd.User, Password: password, TLS: secure,
		DialTimeout: callTimeout, DialKeepAliveTime: pingEvery, DialKeepAliveTimeout: pingTimeout,
		DialOptions: c.dialOptions,
		Logger:      zap.NewNop(), // what matters is in the errors of the calls
	})
}

// Check says what is wrong, also with the files that are named.
func (e Etcd) Check() error {
	if err := e.Validate(); err != nil {
		return err
	}
	_, wrongPassword := e.password()
	_, wrongTLS := e.tls()
	return errors.Join(wrongPassword, wrongTLS)
}

func (e Etcd) password() (string, error) {
	if e.PasswordFile == "" {
		return "", nil
	}
	raw, err := os.ReadFile(e.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("--etcd-password-file: %w", err)
	}
	password := strings.TrimRight(string(raw), "\r\n")
	if password == "" {
		return "", fmt.Errorf("--etcd-password-file: %s is empty", e.PasswordFile)
	}
	return password, nil
}

// tls returns how to secure a connection, or nil where it is to be a plain one.
func (e Etcd) tls() (*tls.Config, error) {
	if e.CAFile+e.CertFile == "" && !strings.HasPrefix(strings.Join(e.Endpoints, ","), "https://") {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CAFile != "" {
		raw, err := os.ReadFile(e.CAFile)
		if err != nil {
			return nil, fmt.Errorf("--etcd-ca-file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("--etcd-ca-file: %s holds no certificate in PEM", e.CAFile)
		}
	}
	if e.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(e.CertFile, e.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("--etcd-cert-file, --etcd-key-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
