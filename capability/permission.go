package capability

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The types of providers.
const (
	TypeKV        = "kv"
	TypeHTTP      = "http"
	TypeMessaging = "messaging"
)

// Types lists them.
func Types() []string { return []string{TypeHTTP, TypeKV, TypeMessaging} }

// The permissions that are a word of their own, and the beginnings of those that name something.
const (
	KVRead    = "kv:read"
	KVWrite   = "kv:write"
	KVDelete  = "kv:delete"
	kvBucket  = "kv:bucket:" // a bucket besides the instance's own; * is all
	HTTPAsk   = "http:request"
	httpHost  = "http:domain:" // narrows http:request to these hosts
	Publish   = "msg:publish"
	Subscribe = "msg:subscribe"
	publishTo = Publish + ":"
	hearFrom  = Subscribe + ":"
)

const maxPermission = 256 // bytes

var (
	bucketPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?$`)
	labelPattern  = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
)

// ValidatePermission says why a provider of this type knows no such permission.
func ValidatePermission(providerType, permission string) error {
	if len(permission) > maxPermission {
		return fmt.Errorf("permission %.40q… has %d bytes: at most %d", permission, len(permission), maxPermission)
	}
	switch providerType {
	case TypeKV:
		if name, ok := strings.CutPrefix(permission, kvBucket); ok {
			if name != "*" && !bucketPattern.MatchString(name) {
				return fmt.Errorf("permission %q: want kv:bucket: and the name of a bucket, or *", permission)
			}
			return nil
		}
		return oneOf(permission, "a kv provider", KVRead, KVWrite, KVDelete, kvBucket+"NAME")
	case TypeHTTP:
		if host, ok := strings.CutPrefix(permission, httpHost); ok {
			if _, err := parseHost(host); err != nil {
				return fmt.Errorf("permission %q: %w", permission, err)
			}
			return nil
		}
		return oneOf(permission, "an http provider", HTTPAsk, httpHost+"HOST")
	case TypeMessaging:
		for _, prefix := range []string{publishTo, hearFrom} {
			if topic, ok := strings.CutPrefix(permission, prefix); ok {
				if err := ValidatePattern(topic); err != nil {
					return fmt.Errorf("permission %q: %w", permission, err)
				}
				if prefix == publishTo && ofCluster(topic) {
					return fmt.Errorf("permission %q: what begins with %s is the cluster's own to publish; msg:subscribe:%s lets a guest hear it", permission, ClusterSubject, topic)
				}
				return nil
			}
		}
		return oneOf(permission, "a messaging provider", Publish, Subscribe, publishTo+"TOPIC", hearFrom+"TOPIC")
	}
	return fmt.Errorf("provider type %q is unknown: want kv, http or messaging", providerType)
}

func oneOf(permission, who string, known ...string) error {
	if slices.Contains(known, permission) { // those that name something have been looked at before
		return nil
	}
	return fmt.Errorf("permission %q is none of those that %s knows: %s", permission, who, strings.Join(known, ", "))
}

// hostPattern is one http:domain permission.
type hostPattern struct {
	host     string // in lower case, without the wildcard's "*."
	wildcard bool   // any name below host
	port     string // empty for any
}

func parseHost(s string) (hostPattern, error) {
	var p hostPattern
	p.host = strings.ToLower(s)
	switch {
	case strings.HasPrefix(p.host, "["): // IPv6
		end := strings.IndexByte(p.host, ']')
		if end < 0 || net.ParseIP(p.host[1:end]) == nil {
			return p, fmt.Errorf("%q is no IPv6 address in brackets", s)
		}
		rest := p.host[end+1:]
		p.host = net.ParseIP(p.host[1:end]).String()
		if rest != "" {
			port, ok := strings.CutPrefix(rest, ":")
			if !ok || !validPort(port) {
				return p, fmt.Errorf("%q does not end with a port", s)
			}
			p.port = port
		}
		return p, nil
	case strings.Count(p.host, ":") == 1:
		p.host, p.port, _ = strings.Cut(p.host, ":")
		if !validPort(p.port) {
			return p, fmt.Errorf("port %q: want from 1 to 65535", p.port)
		}
	}
	if rest, ok := strings.CutPrefix(p.host, "*."); ok {
		p.host, p.wildcard = rest, true
	}
	if ip := net.ParseIP(p.host); ip != nil {
		if p.wildcard {
			return p, fmt.Errorf("%q: an address has nothing below it", s)
		}
		p.host = ip.String()
		return p, nil
	}
	for _, label := range strings.Split(p.host, ".") {
		if !labelPattern.MatchString(label) {
			return p, fmt.Errorf("%q: want a host such as example.com, *.example.com or example.com:8443 (a name with other letters as punycode)", s)
		}
	}
	return p, nil
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// matches says whether a host, in lower case and without brackets, and a port are meant; named where exactly that host is.
func (p hostPattern) matches(host, port string) (ok, named bool) {
	if p.port != "" && p.port != port {
		return false, false
	}
	if p.wildcard {
		return strings.HasSuffix(host, "."+p.host), false
	}
	return host == p.host, host == p.host
}

const maxSubject = 255 // bytes

// ValidateSubject says what is wrong with a subject to publish to: tokens between dots, without wildcards.
func ValidateSubject(subject string) error {
	if strings.ContainsAny(subject, "*>") {
		for token := range strings.SplitSeq(subject, ".") {
			if token == "*" || token == ">" {
				return fmt.Errorf("subject %q has a wildcard, which is for subscriptions", clip(subject))
			}
		}
	}
	return ValidatePattern(subject)
}

// ValidatePattern says what is wrong with a subject to subscribe to: tokens between dots, * for any one, and > at the
// end for all that follow.
func ValidatePattern(subject string) error {
	if subject == "" || len(subject) > maxSubject {
		return fmt.Errorf("a subject of %d bytes: want from 1 to %d", len(subject), maxSubject)
	}
	tokens := strings.Split(subject, ".")
	for n, token := range tokens {
		if token == "" {
			return fmt.Errorf("subject %q has an empty token", clip(subject))
		}
		if token == ">" && n != len(tokens)-1 {
			return fmt.Errorf("subject %q: > stands only at the end", clip(subject))
		}
		for _, r := range token {
			if r <= ' ' || r == 0x7f || r == '\uFFFD' {
				return fmt.Errorf("subject %q holds a blank, a control character or bytes that are not UTF-8", clip(subject))
			}
		}
	}
	return nil
}

// ClusterSubject is the first token of the subjects that the cluster speaks on, as of its events. Only nodes publish there.
const ClusterSubject = "wasmatrix"

// ofCluster says whether a subject is one that the cluster speaks on.
func ofCluster(subject string) bool {
	first, _, _ := strings.Cut(subject, ".")
	return first == ClusterSubject
}

// Reserved says whether a subject is one that NATS keeps for itself: its servers' own, its streams and buckets, where answers
// go; or one of the cluster. A wildcard at the beginning does not mean these, as in MQTT: they need to be named. Else who may
// publish to all topics could change what others keep in the same NATS cluster, and who may hear all would hear others' answers.
func Reserved(subject string) bool {
	first, _, _ := strings.Cut(subject, ".")
	return strings.HasPrefix(first, "$") || first == "_INBOX" || ofCluster(subject)
}

// BeginsWild says whether a pattern leaves open how a subject begins.
func BeginsWild(pattern string) bool {
	first, _, _ := strings.Cut(pattern, ".")
	return first == "*" || first == ">"
}

// covers says whether every subject that the inner pattern stands for is one of the outer's.
func covers(outer, inner string) bool {
	for {
		o, oRest, oMore := strings.Cut(outer, ".")
		i, iRest, iMore := strings.Cut(inner, ".")
		switch {
		case o == ">":
			return true
		case i == ">":
			return false
		case o != "*" && o != i:
			return false
		case !oMore || !iMore:
			return oMore == iMore
		}
		outer, inner = oRest, iRest
	}
}

// clip shortens what a guest may have made long, for a message.
func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}
