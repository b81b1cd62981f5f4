package capability

import (
	"net"
	"strings"
)

// Rights is what one instance may do, made of its grants to be asked quickly. It never changes: new grants make
// new rights. nil allows nothing.
type Rights struct {
	byID map[string]*Right
}

// Right is what one grant allows.
type Right struct {
	Grant *Grant

	read, write, remove bool
	buckets             map[string]struct{}
	allBuckets          bool

	ask      bool
	narrowed bool // to hosts, though this version may not know how to read one
	hosts    []hostPattern

	publish, hear []string // patterns; > is all
}

// Compile makes rights of grants. A permission that nobody knows, as of a newer version, allows nothing.
func Compile(grants []*Grant) *Rights {
	if len(grants) == 0 {
		return nil
	}
	r := &Rights{byID: make(map[string]*Right, len(grants))}
	for _, g := range grants {
		r.byID[g.GetCapabilityId()] = compileOne(g)
	}
	return r
}

func compileOne(g *Grant) *Right {
	r := &Right{Grant: g}
	for _, p := range g.GetPermissions() {
		r.narrowed = r.narrowed || strings.HasPrefix(p, httpHost)
		if ValidatePermission(g.GetProviderType(), p) != nil {
			continue
		}
		switch p {
		case KVRead:
			r.read = true
		case KVWrite:
			r.write = true
		case KVDelete:
			r.remove = true
		case HTTPAsk:
			r.ask = true
		case Publish:
			r.publish = append(r.publish, ">")
		case Subscribe:
			r.hear = append(r.hear, ">")
		}
		if name, ok := strings.CutPrefix(p, kvBucket); ok {
			if name == "*" {
				r.allBuckets = true
			} else {
				if r.buckets == nil {
					r.buckets = map[string]struct{}{}
				}
				r.buckets[name] = struct{}{}
			}
		} else if host, ok := strings.CutPrefix(p, httpHost); ok {
			if pattern, err := parseHost(host); err == nil { // which ValidatePermission has seen to
				r.hosts = append(r.hosts, pattern)
			}
		} else if topic, ok := strings.CutPrefix(p, publishTo); ok {
			r.publish = append(r.publish, topic)
		} else if topic, ok := strings.CutPrefix(p, hearFrom); ok {
			r.hear = append(r.hear, topic)
		}
	}
	return r
}

// Of returns what is allowed with one capability, which must be of that type.
func (r *Rights) Of(capabilityID, providerType string) (*Right, error) {
	var one *Right
	if r != nil {
		one = r.byID[capabilityID]
	}
	if one == nil {
		return nil, Errorf(UnknownGrant, "this instance has no grant of a capability %q", clip(capabilityID))
	}
	if t := one.Grant.GetProviderType(); t != providerType {
		return nil, Errorf(InvalidRequest, "capability %q is of type %s, and this is a call of type %s", capabilityID, t, providerType)
	}
	return one, nil
}

// Key is what a call does to a key.
type Key uint8

// What can be done to keys; a call may do several at once.
const (
	ReadKey Key = 1 << iota
	WriteKey
	DeleteKey
)

// Bucket says whether that may be done in a bucket, by an instance whose own one that is.
func (r *Right) Bucket(does Key, own, bucket string) error {
	for _, need := range [...]struct {
		key  Key
		has  bool
		name string
	}{{ReadKey, r.read, KVRead}, {WriteKey, r.write, KVWrite}, {DeleteKey, r.remove, KVDelete}} {
		if does&need.key != 0 && !need.has {
			return r.lacks(need.name)
		}
	}
	if bucket == own || r.allBuckets {
		return nil
	}
	if _, ok := r.buckets[bucket]; ok {
		return nil
	}
	return r.lacks(kvBucket + clip(bucket))
}

// Host says whether a request may go to a host and port; named where a permission names exactly that host, and
// so means it wherever it is.
func (r *Right) Host(host, port string) (named bool, err error) {
	if !r.ask {
		return false, r.lacks(HTTPAsk)
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String() // one spelling
	}
	allowed := !r.narrowed
	for _, p := range r.hosts {
		ok, exact := p.matches(host, port)
		allowed, named = allowed || ok, named || exact
	}
	if !allowed {
		return false, r.lacks(httpHost + clip(host) + " (port " + clip(port) + ")")
	}
	return named, nil
}

// PublishTo says whether messages may be sent to a subject.
func (r *Right) PublishTo(subject string) error {
	return r.topic(r.publish, publishTo, subject)
}

// HearFrom says whether messages of a subject, or of all that a pattern stands for, may be received.
func (r *Right) HearFrom(subject string) error {
	return r.topic(r.hear, hearFrom, subject)
}

func (r *Right) topic(allowed []string, prefix, subject string) error {
	for _, pattern := range allowed {
		if covers(pattern, subject) && (!Reserved(subject) || !BeginsWild(pattern)) {
			return nil
		}
	}
	return r.lacks(prefix + clip(subject))
}

func (r *Right) lacks(permission string) error {
	return Errorf(PermissionDenied, "the grant of capability %q does not hold %s", r.Grant.GetCapabilityId(), permission)
}

// HearsAny says whether messages of any subject may be received.
func (r *Right) HearsAny() error {
	if len(r.hear) == 0 {
		return r.lacks(Subscribe)
	}
	return nil
}
