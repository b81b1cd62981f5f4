package httpclient

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"github.com/wasmatrix/wasmatrix/capability"
)

// dialPublic connects to addresses of the public Internet. It looks at the address that the kernel is about to
// connect to, so that nothing which happens between a check and the connection matters.
func dialPublic(r *net.Resolver) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		d := dialer(r)
		d.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			to, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			if kind := special(to.Addr()); kind != "" {
				return capability.Errorf(capability.PermissionDenied,
					"%s is at %s, %s address: requests go there only by a permission that names the host, http:domain:%s", host, to.Addr(), kind, host)
			}
			return nil
		}
		return d.DialContext(ctx, network, addr)
	}
}

// specials are the addresses that are not somebody's on the public Internet, by the registries of IANA for special
// purposes (RFC 6890 and what followed).
var specials = []struct {
	prefix netip.Prefix
	kind   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "a private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a carrier's private"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local"}, // the metadata of clouds
	{netip.MustParsePrefix("172.16.0.0/12"), "a private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "a documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay's"},
	{netip.MustParsePrefix("192.168.0.0/16"), "a private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "a benchmark"},
	{netip.MustParsePrefix("198.51.100.0/24"), "a documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "a documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved or broadcast"},

	{netip.MustParsePrefix("::1/128"), "a loopback"},
	{netip.MustParsePrefix("::/128"), "an unspecified"},
	{netip.MustParsePrefix("fc00::/7"), "a private"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast"},
	{netip.MustParsePrefix("2001::/23"), "a reserved"}, // Teredo among them, which holds IPv4 addresses
	{netip.MustParsePrefix("2001:db8::/32"), "a documentation"},
	{netip.MustParsePrefix("2002::/16"), "a 6to4"}, // which holds an IPv4 address
	{netip.MustParsePrefix("3fff::/20"), "a documentation"},
}

var (
	nat64  = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052: the last four bytes are an IPv4 address
	global = netip.MustParsePrefix("2000::/3")     // all that IPv6 has on the public Internet
)

// special says what kind of address it is, if it is not a public one.
func special(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, s := range specials {
		if s.prefix.Contains(addr) {
			return s.kind
		}
	}
	if addr.Is6() && !global.Contains(addr) { // IPv4-compatible, local NAT64, discard, ...
		return "a reserved"
	}
	return ""
}
