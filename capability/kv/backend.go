package kv

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// backend is a backend's URL, taken apart. net/url reads no lists of hosts.
type backend struct {
	scheme         string
	user, password string
	hosts          []string // HOST:PORT
	path           string   // without its slash
	query          url.Values
}

// parseBackend reads a backend's URL. Its errors show nothing that may be secret.
func parseBackend(raw string) (b backend, err error) {
	scheme, rest, ok := strings.Cut(raw, ":")
	b.scheme = strings.ToLower(scheme)
	if b.scheme == "memory" && ok && strings.Trim(rest, "/") == "" {
		return b, nil
	}
	switch b.scheme {
	case "redis", "rediss", "nats", "etcd":
	default:
		return b, fmt.Errorf("a kv backend begins with raft:, memory:, redis://, rediss://, nats:// or etcd://")
	}
	rest, ok = strings.CutPrefix(rest, "//")
	if !ok {
		return b, fmt.Errorf("a %s backend is %s://HOST:PORT", b.scheme, b.scheme)
	}
	rest, query, _ := strings.Cut(rest, "?")
	if b.query, err = url.ParseQuery(query); err != nil {
		return b, fmt.Errorf("what follows the ? of a %s backend is no list of NAME=VALUE", b.scheme)
	}
	authority, path, _ := strings.Cut(rest, "/")
	b.path = strings.Trim(path, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		authority = authority[at+1:]
		if b.user, err = url.PathUnescape(user); err == nil {
			b.password, err = url.PathUnescape(password)
		}
		if err != nil {
			return b, fmt.Errorf("the user or the password of a %s backend has a %% that begins no escape: write it as %%25", b.scheme)
		}
	}
	for host := range strings.SplitSeq(authority, ",") {
		name, port, err := net.SplitHostPort(host)
		if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || name == "" || wrong != nil || n == 0 {
			return b, fmt.Errorf("%q is no HOST:PORT of a %s backend (a / or @ in a password is written as %%2F or %%40)", lastPart(host), b.scheme)
		}
		b.hosts = append(b.hosts, host)
	}
	return b, b.validate()
}

// lastPart is what of a bad host may be shown: with a badly written password, the rest may be a part of that.
func lastPart(host string) string {
	if strings.Count(host, ":") > 1 || len(host) > 64 {
		return "…"
	}
	return host
}

func (b backend) validate() error {
	for name := range b.query {
		if b.scheme != "nats" || name != "replicas" {
			return fmt.Errorf("a %s backend knows no option %q", b.scheme, name)
		}
	}
	switch b.scheme {
	case "redis", "rediss":
		if len(b.hosts) > 1 {
			return fmt.Errorf("a %s backend is one HOST:PORT", b.scheme)
		}
		if _, err := b.db(); err != nil {
			return err
		}
	case "nats", "etcd":
		if b.path != "" {
			return fmt.Errorf("nothing follows the hosts of a %s backend", b.scheme)
		}
	}
	_, err := b.replicas()
	return err
}

// db is the number of a redis database.
func (b backend) db() (int, error) {
	if b.path == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(b.path, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no number of a database", b.path)
	}
	return int(n), nil
}

// replicas is on how many of its servers NATS keeps the keys.
func (b backend) replicas() (int, error) {
	text := b.query.Get("replicas")
	if text == "" {
		return 1, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n < 1 || n > 5 {
		return 0, fmt.Errorf("%q replicas: want 1 to 5", text)
	}
	return int(n), nil
}

// shown is the URL as anybody may see it.
func (b backend) shown() string {
	if b.scheme == "memory" {
		return "memory:"
	}
	s := b.scheme + "://" + strings.Join(b.hosts, ",")
	if b.path != "" {
		s += "/" + b.path
	}
	return s
}

// scrub takes the secrets out of a text.
func (b backend) scrub(text string) string {
	secrets := []string{b.password}
	if b.scheme == "nats" && b.password == "" {
		secrets = append(secrets, b.user) // a token
	}
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		for _, spelled := range []string{secret, url.PathEscape(secret), url.QueryEscape(secret), url.UserPassword("", secret).String()[1:]} {
			text = strings.ReplaceAll(text, spelled, "***")
		}
	}
	return text
}

// Redact returns a backend's URL without its secrets, as anybody may see it.
func Redact(raw string) string {
	b, err := parseBackend(raw)
	if err != nil {
		scheme, _, _ := strings.Cut(raw, ":")
		return escape(scheme, '_', "") + ":…"
	}
	return b.shown()
}
