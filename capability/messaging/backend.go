package messaging

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go"
)

// backend is where an existing NATS cluster is, and how it knows us. The secrets are apart from the addresses, so
// that no address in an error or a log line holds one.
type backend struct {
	servers  []string // nats://host:port or tls://host:port
	user     string
	password string
	token    string
}

// ValidateBackend says what is wrong with a backend URL, without what is secret in it.
func ValidateBackend(backendURL string) error {
	_, err := parseBackend(backendURL)
	return err
}

// parseBackend reads nats://[USER:PASSWORD@]HOST[:PORT][,...]. What one server does not say, it has from the one before: so
// nats://user:password@a,b is two servers with one user. A user without a password is a token.
func parseBackend(s string) (backend, error) {
	var b backend
	scheme := ""
	for n, part := range strings.Split(s, ",") {
		part = strings.TrimSpace(part)
		if n > 0 && !strings.Contains(part, "://") {
			part = scheme + "://" + part
		}
		u, err := url.Parse(part)
		if err != nil || u.Hostname() == "" {
			// The error of url.Parse holds all of it.
			return b, fmt.Errorf("server %d of the messaging backend: want nats://[USER:PASSWORD@]HOST:PORT", n+1)
		}
		scheme = u.Scheme
		switch {
		case scheme != "nats" && scheme != "tls":
			return b, fmt.Errorf("server %d of the messaging backend has scheme %q: want nats or tls", n+1, scheme)
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			return b, fmt.Errorf("server %d of the messaging backend: want nothing after host and port", n+1)
		}
		if u.User != nil {
			one := backend{user: u.User.Username()}
			if password, ok := u.User.Password(); ok {
				one.password = password
			} else {
				one.user, one.token = "", one.user
			}
			if n > 0 && (one.user != b.user || one.password != b.password || one.token != b.token) {
				return b, errors.New("the servers of the messaging backend have different users: they are one cluster, and know one")
			}
			b.user, b.password, b.token = one.user, one.password, one.token
		}
		port := u.Port()
		if port == "" {
			port = "4222"
		}
		b.servers = append(b.servers, scheme+"://"+net.JoinHostPort(u.Hostname(), port))
	}
	return b, nil
}

func (b backend) options() []nats.Option {
	switch {
	case b.token != "":
		return []nats.Option{nats.Token(b.token)}
	case b.user != "":
		return []nats.Option{nats.UserInfo(b.user, b.password)}
	}
	return nil
}
