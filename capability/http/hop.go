package httpclient

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"

	"github.com/wasmatrix/wasmatrix/capability"
)

const (
	maxURL    = 16 << 10 // bytes; servers take about half of it
	maxMethod = 32       // bytes
	maxHost   = 253      // bytes, RFC 1035
)

// hop is one request of those that redirects make of one.
type hop struct {
	method string
	url    *url.URL
	host   string // as the grant is asked for it: in lower case, punycode, without brackets
	port   string
	header http.Header
	body   *upload // nil for none
}

// firstHop is what a guest asks for, or says why that makes no sense.
func (c *Client) firstHop(r *capability.HTTPRequest) (*hop, error) {
	h := &hop{method: r.Method}
	switch {
	case len(r.Method) > maxMethod || !httpguts.ValidHeaderFieldName(r.Method): // both are tokens, RFC 9110
		return nil, capability.Errorf(capability.InvalidRequest, "method %.40q is none", r.Method)
	case strings.EqualFold(r.Method, http.MethodConnect), strings.EqualFold(r.Method, http.MethodTrace):
		return nil, capability.Errorf(capability.InvalidRequest, "method %s is not for guests", r.Method)
	}
	u, err := url.Parse(r.URL)
	if err != nil || len(r.URL) > maxURL {
		return nil, capability.Errorf(capability.InvalidRequest, "the URL of %d bytes is none", len(r.URL))
	}
	if err := h.setURL(u); err != nil {
		return nil, err
	}
	if h.body, err = newUpload(r.Body, r.Length, c.cfg.MaxBody); err != nil {
		return nil, err
	}
	if h.header, err = c.header(r, h); err != nil {
		return nil, err
	}
	return h, nil
}

// setURL takes a URL in, and brings its host into the form that is checked: so the host that is connected to is the one
// that was asked about.
func (h *hop) setURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return capability.Errorf(capability.InvalidRequest, "scheme %.20q: want http or https", u.Scheme)
	case u.Opaque != "" || u.Hostname() == "":
		return capability.Errorf(capability.InvalidRequest, "the URL names no host")
	case u.User != nil:
		return capability.Errorf(capability.InvalidRequest, "the URL holds a user: credentials belong into the header Authorization")
	}
	host, err := canonicalHost(u.Hostname())
	if err != nil {
		return err
	}
	port := u.Port()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
		return capability.Errorf(capability.InvalidRequest, "port %.10q: want from 1 to 65535", port)
	} else if port != "" {
		port = strconv.FormatUint(n, 10) // one spelling
	}
	plain := "80"
	if u.Scheme == "https" {
		plain = "443"
	}
	if port == "" {
		port = plain
	}
	h.host, h.port = host, port

	own := *u
	own.Fragment, own.RawFragment = "", ""
	own.RawQuery = strings.ReplaceAll(u.RawQuery, " ", "%20") // which net/http would send as it is
	own.Host = host
	if strings.Contains(host, ":") {
		own.Host = "[" + host + "]"
	}
	if port != plain {
		own.Host = net.JoinHostPort(host, port)
	}
	h.url = &own
	return nil
}

// canonicalHost returns the one spelling of a name or an address.
func canonicalHost(host string) (string, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return "", capability.Errorf(capability.InvalidRequest, "the URL's address has a zone, which means something only on one host")
		}
		return addr.Unmap().String(), nil
	}
	given := host
	host = strings.TrimSuffix(host, ".")
	if strings.ContainsFunc(host, func(r rune) bool { return r >= 0x80 }) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return "", capability.Errorf(capability.InvalidRequest, "host %.80q: %w", given, err)
		}
		if host = ascii; net.ParseIP(host) != nil { // an address in letters that look like digits
			return "", capability.Errorf(capability.InvalidRequest, "host %.80q is no name", given)
		}
	}
	host = strings.ToLower(host)
	if len(host) > maxHost {
		return "", capability.Errorf(capability.InvalidRequest, "a host of %d bytes: at most %d", len(host), maxHost)
	}
	var last string
	for label := range strings.SplitSeq(host, ".") {
		last = label
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", capability.Errorf(capability.InvalidRequest, "host %.80q is no name", given)
		}
	}
	// 127.1 and 0x7f000001 are addresses to some, and names to others.
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || strings.Trim(last, "0123456789") == "" {
		return "", capability.Errorf(capability.InvalidRequest, "host %.80q is neither a name nor an address", given)
	}
	return host, nil
}

// Headers that are between two ends of one connection, and so are not a guest's (RFC 9110, section 7.6.1).
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true, "Proxy-Connection": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Http2-Settings": true,
}

func (c *Client) header(r *capability.HTTPRequest, h *hop) (http.Header, error) {
	header := make(http.Header, len(r.Header)+1)
	var size int64
	for _, f := range r.Header {
		name := http.CanonicalHeaderKey(f.Name)
		size += int64(len(f.Name) + len(f.Value) + len(": \r\n"))
		switch {
		case !httpguts.ValidHeaderFieldName(f.Name):
			return nil, capability.Errorf(capability.InvalidRequest, "header name %.40q is none", f.Name)
		case !httpguts.ValidHeaderFieldValue(f.Value): // which is not shown: it may be a secret
			return nil, capability.Errorf(capability.InvalidRequest, "the value of header %.40s holds a line break or another control character", name)
		case hopByHop[name]:
			return nil, capability.Errorf(capability.InvalidRequest, "header %s is about the connection, which is not the guest's", name)
		case size > c.cfg.MaxHeader:
			return nil, capability.Errorf(capability.Exhausted, "the header of the request has more than %d bytes", c.cfg.MaxHeader)
		case name == "Host":
			if !strings.EqualFold(f.Value, h.url.Host) && !strings.EqualFold(f.Value, net.JoinHostPort(h.host, h.port)) {
				return nil, capability.Errorf(capability.InvalidRequest, "header Host is %.80q, and the URL's host %s: want the same", f.Value, h.url.Host)
			}
		case name == "Content-Length":
			if f.Value != strconv.FormatInt(h.body.size(), 10) {
				return nil, capability.Errorf(capability.InvalidRequest, "header Content-Length is %.20q, and the body has %d bytes", f.Value, h.body.size())
			}
		default:
			header.Add(name, f.Value)
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header.Set("User-Agent", c.cfg.UserAgent)
	}
	return header, nil
}

func (h *hop) request(ctx context.Context) *http.Request {
	r := &http.Request{
		Method: h.method, URL: h.url, Host: h.url.Host, Header: h.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if h.body != nil {
		r.Body, r.ContentLength = h.body.reader(), h.body.length
		if h.body.again != nil {
			r.GetBody = h.body.get
		}
	}
	return r.WithContext(ctx)
}

// nextHop is where a response redirects to; nil if it does not.
func (c *Client) nextHop(h *hop, resp *http.Response) (*hop, error) {
	location := resp.Header.Get("Location")
	if location == "" {
		return nil, nil
	}
	next := &hop{method: h.method, header: h.header, body: h.body}
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound:
		if h.method == http.MethodPost { // as all browsers do, RFC 9110, section 15.4.2
			next.method, next.body = http.MethodGet, nil
		}
	case http.StatusSeeOther:
		if h.method != http.MethodHead {
			next.method = http.MethodGet
		}
		next.body = nil
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	if next.body != nil && next.body.again == nil {
		return nil, nil // it can't be sent again: the guest sees where it should go
	}
	u, err := h.url.Parse(location)
	if err != nil || len(location) > maxURL {
		return nil, capability.Errorf(capability.Unavailable, "%s redirects to what is no URL", h.host)
	}
	if err := next.setURL(u); err != nil {
		return nil, capability.Errorf(capability.PermissionDenied, "%s redirects to where no request may go: %w", h.host, err)
	}
	elsewhere := next.host != h.host || next.port != h.port || h.url.Scheme == "https" && next.url.Scheme == "http"
	if elsewhere || next.body == nil && h.body != nil {
		next.header = h.header.Clone()
	}
	if elsewhere {
		for _, name := range []string{"Authorization", "Cookie", "Cookie2", "Www-Authenticate"} {
			delete(next.header, name)
		}
	}
	if next.body == nil && h.body != nil {
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Location", "Content-Md5", "Content-Range", "Digest", "Expect"} {
			delete(next.header, name)
		}
	}
	return next, nil
}
