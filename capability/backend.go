package capability

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// The backends that a provider has where none is given.
const (
	BackendRaft     = "raft:"     // keys and values replicated over the voters
	BackendMemory   = "memory:"   // keys and values in the memory of one node
	BackendEmbedded = "embedded:" // the messaging servers of the nodes themselves
	BackendDirect   = "direct:"   // HTTP requests from the node that runs the provider
)

// DefaultBackend returns the backend of a provider of that type that names none.
func DefaultBackend(providerType string) string {
	return map[string]string{TypeKV: BackendRaft, TypeMessaging: BackendEmbedded, TypeHTTP: BackendDirect}[providerType]
}

// backends says which URLs each type takes: those without a host as they are, and schemes of servers.
var backends = map[string]struct {
	own     []string
	servers []string
}{
	TypeKV:        {[]string{BackendRaft, BackendMemory}, []string{"redis", "rediss", "nats", "etcd"}},
	TypeMessaging: {[]string{BackendEmbedded}, []string{"nats", "tls"}},
	TypeHTTP:      {[]string{BackendDirect}, nil},
}

// DefaultTimeout is how long one call to a provider may take where its configuration says nothing.
const DefaultTimeout = 5 * time.Second

// Keys of a provider's configuration.
const (
	ConfigBackend = "backend"
	ConfigTimeout = "timeout"  // how long one call may take
	ConfigMaxBody = "max_body" // http: bytes of a request's or response's body
)

// Settings is a provider's configuration, read.
type Settings struct {
	Backend string
	Timeout time.Duration
	MaxBody int64
}

// ReadSettings reads the configuration of a provider of that type, completes it with defaults, and says what is wrong with
// it, without secrets.
func ReadSettings(providerType string, config map[string]string) (Settings, error) {
	s := Settings{Backend: config[ConfigBackend], Timeout: DefaultTimeout, MaxBody: DefaultBody}
	if s.Backend == "" {
		s.Backend = DefaultBackend(providerType)
	}
	if err := validateBackend(providerType, s.Backend); err != nil {
		return s, err
	}
	for _, key := range slices.Sorted(maps.Keys(config)) {
		value := config[key]
		switch {
		case key == ConfigBackend:
		case key == ConfigTimeout:
			d, err := time.ParseDuration(value)
			if err != nil || d < time.Millisecond || d > time.Minute {
				return s, fmt.Errorf("timeout %q: want from 1ms to 1m", value)
			}
			s.Timeout = d
		case key == ConfigMaxBody && providerType == TypeHTTP:
			n, err := humanize.ParseBytes(value)
			if err != nil || n == 0 || n > 1<<30 {
				return s, fmt.Errorf("max_body %q: want a size from 1 byte to 1GiB, such as 10MiB", value)
			}
			s.MaxBody = int64(n)
		default:
			return s, fmt.Errorf("a provider of type %s has no configuration %q", providerType, key)
		}
	}
	return s, nil
}

func validateBackend(providerType, backend string) error {
	known, ok := backends[providerType]
	if !ok {
		return fmt.Errorf("provider type %q is unknown: want kv, http or messaging", providerType)
	}
	if slices.Contains(known.own, backend) {
		return nil
	}
	all := slices.Clone(known.own)
	for _, scheme := range known.servers {
		all = append(all, scheme+"://HOST:PORT")
	}
	for _, part := range urlsOf(backend) {
		u, err := url.Parse(part)
		if err != nil || !slices.Contains(known.servers, u.Scheme) || u.Host == "" {
			return fmt.Errorf("backend %q of a provider of type %s: want %s", Redact(backend), providerType, strings.Join(all, ", "))
		}
	}
	return nil
}

// urlsOf returns the URLs of servers that are given as one, with commas: those after the first may lack the scheme.
func urlsOf(backend string) []string {
	parts := strings.Split(backend, ",")
	scheme, _, _ := strings.Cut(parts[0], "://")
	for n := range parts[1:] {
		if !strings.Contains(parts[n+1], "://") {
			parts[n+1] = scheme + "://" + parts[n+1]
		}
	}
	return parts
}

// plainUser is a user's name that can't be anything else, and what follows it.
var plainUser = regexp.MustCompile(`^([A-Za-z0-9_.-]*):[^@]*$`)

// Redact returns a backend without what may be secret in it: passwords, a user that stands alone, as a token does, and
// queries. It does not trust what somebody has typed to be a URL: all before the last @ is hidden but a plain user's name.
func Redact(backend string) string {
	scheme, rest, isURL := strings.Cut(backend, "://")
	if !isURL {
		return backend // raft: and the like, or what is refused as none
	}
	shown := scheme + "://"
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user := "xxxxx"
		if m := plainUser.FindStringSubmatch(rest[:at]); m != nil {
			user = m[1] + ":xxxxx"
		}
		shown += user + "@"
		rest = rest[at+1:]
	}
	if query := strings.IndexAny(rest, "?#"); query >= 0 {
		rest = rest[:query] + "?xxxxx"
	}
	return shown + rest
}
