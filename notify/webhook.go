package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// signatureHeader is where GitHub has the signature of its webhooks, and what many receivers can check already.
	signatureHeader = "X-Hub-Signature-256"
	// maxAnswer is how much of an answer is read, so that the connection can be used again. Nobody looks at it.
	maxAnswer  = 64 << 10
	maxHeaders = 64 << 10
)

// webhook delivers to one address.
type webhook struct {
	address  string
	webhooks Webhooks
	pace     pace
	agent    string
	client   *http.Client
}

func newWebhook(cfg Config, address string) *webhook {
	return &webhook{address: address, webhooks: cfg.Webhooks, pace: cfg.pace, agent: "wasmatrix/" + cfg.Version, client: &http.Client{
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.roots}, ForceAttemptHTTP2: true,
			MaxIdleConns: 1, IdleConnTimeout: time.Minute, DisableCompression: true, MaxResponseHeaderBytes: maxHeaders,
		},
		// It could lead where nobody has allowed us to go, with the event and without the signature's meaning.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// shown returns what of an address is no secret: paths are, with many receivers.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "webhook"
	}
	return u.Scheme + "://" + u.Host
}

// deliver makes one attempt.
func (w *webhook) deliver(ctx context.Context, d delivery) error {
	ctx, cancel := context.WithTimeout(ctx, w.pace.attempt)
	defer cancel()
	secret, err := w.webhooks.secret()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.address, bytes.NewReader(d.body))
	if err != nil {
		return errors.Join(errRefused, w.hide(err))
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", w.agent)
	if secret != nil {
		req.Header.Set(signatureHeader, sign(secret, d.body))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return w.hide(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // what it says besides the status matters to nobody
	return w.judge(resp.StatusCode, resp.Header.Get("Retry-After"), time.Now())
}

// judge makes an error of an answer, unless that is a good one.
func (w *webhook) judge(status int, retryAfter string, now time.Time) error {
	answer := fmt.Sprintf("it answers %d %s", status, http.StatusText(status))
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		return fmt.Errorf("%s, and redirects are not followed: give --event-webhook the address that it leads to (%w)", answer, errRefused)
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		after, said := readRetryAfter(retryAfter, now)
		if !said {
			return errors.New(answer)
		}
		after = min(max(after, w.pace.again), w.pace.retryAfterAtMost)
		return fmt.Errorf("%s: %w", answer, &backoff.RetryAfterError{Duration: after})
	default:
		return fmt.Errorf("%s (%w)", answer, errRefused)
	}
}

// readRetryAfter reads a Retry-After: seconds, or a date.
func readRetryAfter(header string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return at.Sub(now), true
	}
	return 0, false
}

// hide takes the address off an error.
func (w *webhook) hide(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// sign returns the signature of a body.
func sign(secret, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body) // never fails
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
