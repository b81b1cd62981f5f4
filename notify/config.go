package notify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wasmatrix/wasmatrix/capability/messaging"
)

// Config is what a notifier is told.
type Config struct {
	Webhooks Webhooks
	// Returns the node's connection to its messaging server, once that is up.
	Messages func(context.Context) (*messaging.Conn, error)
	Version  string

	Log *slog.Logger
	// May be nil: then there are no metrics.
	Registerer prometheus.Registerer

	// Of tests: whom to trust besides whom the host trusts, and another pace.
	roots *x509.CertPool
	pace  pace
}

// Webhooks says who is told by HTTP.
type Webhooks struct {
	// http:// or https://, each once. They may hold secrets: they are never shown but for scheme and host.
	URLs []string
	// Holds the key of the signature; empty for none. It is read for each event, so that it can be changed.
	SecretFile string
}

// pace is how patient a webhook is.
type pace struct {
	attempt time.Duration // what one attempt may take, to the last byte of the answer
	// How soon it is tried again after a failure, at first and in the end; half of it more or less, so that those who failed together
	// don't come back together.
	again, againAtMost time.Duration
	// An event that was tried for so long is dropped: it may be that one that the receiver can't take, and others wait behind it.
	giveUp time.Duration
	// A receiver that asks for more patience than this is asked earlier.
	retryAfterAtMost time.Duration
}

var usualPace = pace{
	attempt: 10 * time.Second, again: 500 * time.Millisecond, againAtMost: 30 * time.Second,
	giveUp: 15 * time.Minute, retryAfterAtMost: 5 * time.Minute,
}

func (c Config) withDefaults() Config {
	if c.pace == (pace{}) {
		c.pace = usualPace
	}
	return c
}

// Validate says what is wrong, in terms of the flags that set it. It shows no address, for one may hold a secret.
func (w Webhooks) Validate() error {
	if len(w.URLs) == 0 && w.SecretFile != "" {
		return errors.New("--event-webhook-secret-file is for webhooks, and there is no --event-webhook")
	}
	var errs []error
	seen := map[string]int{}
	for n, raw := range w.URLs {
		u, err := url.Parse(raw)
		switch {
		case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Fragment != "":
			errs = append(errs, fmt.Errorf("--event-webhook: number %d is not http://HOST[:PORT]/PATH or https://", n+1))
		case seen[raw] > 0:
			errs = append(errs, fmt.Errorf("--event-webhook: numbers %d and %d are the same", seen[raw], n+1))
		default:
			seen[raw] = n + 1
		}
	}
	return errors.Join(errs...)
}

// Check says what is wrong, also with the file that is named.
func (w Webhooks) Check() error {
	if err := w.Validate(); err != nil {
		return err
	}
	_, err := w.secret()
	return err
}

// secret returns the key of the signature, or nil for none.
func (w Webhooks) secret() ([]byte, error) {
	if w.SecretFile == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(w.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("--event-webhook-secret-file: %w", err)
	}
	secret := strings.TrimRight(string(raw), "\r\n")
	if secret == "" {
		return nil, fmt.Errorf("--event-webhook-secret-file: %s is empty", w.SecretFile)
	}
	return []byte(secret), nil
}
