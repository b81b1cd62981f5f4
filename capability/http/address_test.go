package httpclient

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/wasmatrix/wasmatrix/capability"
)

func TestSpecialAddresses(t *testing.T) {
	for _, public := range []string{
		"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
		"169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
		"223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
	} {
		if kind := special(netip.MustParseAddr(public)); kind != "" {
			t.Errorf("%s is %s address", public, kind)
		}
	}
	for _, private := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.0.1", "169.254.169.254",
		"172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255",
		"198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
		"64:ff9b::127.0.0.1", "64:ff9b::10.1.2.3", "64:ff9b::169.254.169.254", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1", "2001:20::1", "2001:db8::1",
		"2002:7f00:1::", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1",
	} {
		if special(netip.MustParseAddr(private)) == "" {
			t.Errorf("%s is taken for public", private)
		}
	}
}

// A name that was public when somebody looked, and is not when it is connected to.
func TestRebindingIsRefused(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "internal") })
	for _, private := range []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"} {
		names := serveNames(t, func(_ string, nth int) []string {
			if nth == 0 {
				return []string{"93.184.216.34"}
			}
			return []string{private}
		})
		addrs, err := names.LookupNetIP(t.Context(), "ip4", "rebind.example.test")
		if err != nil || special(addrs[0].Unmap()) != "" {
			t.Fatalf("%v, %v", addrs, err)
		}
		c := client(t, Config{Resolver: names})
		for _, allow := range []func(string, string) (bool, error){granted(), granted("*.example.test")} {
			_, _, err = send(c, &capability.HTTPRequest{Method: "GET", URL: "http://rebind.example.test:" + s.port, Allow: allow})
			want(t, err, capability.PermissionDenied, "requests go there only by a permission that names the host, http:domain:rebind.example.test")
		}
	}
	if n := s.connections.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

func TestPrivateHostIsForWhoeverNamesIt(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	c := client(t, Config{Resolver: serveNames(t, func(name string, _ int) []string {
		if name == "db.internal" || name == "localhost.example.test" {
			return []string{"127.0.0.1"}
		}
		return nil
	})})
	ask := func(host string, allow func(string, string) (bool, error)) (string, error) {
		_, body, err := send(c, &capability.HTTPRequest{Method: "GET", URL: "http://" + host + ":" + s.port, Allow: allow})
		return body, err
	}
	for host, allow := range map[string]func(string, string) (bool, error){
		"db.internal":        granted("db.internal"),
		"DB.Internal.":       granted("other", "Db.Internal:"+s.port),
		"127.0.0.1":          loopback,
		"[::ffff:127.0.0.1]": loopback,
		"[::ffff:7f00:1]":    granted("[::ffff:127.0.0.1]"),
	} {
		if _, err := ask(host, allow); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}

	// Those connections wait to be used again. They are not for who was granted all hosts, or a wildcard.
	before := s.requests.Load()
	for host, allow := range map[string]func(string, string) (bool, error){
		"db.internal": granted(), "db.internal.": granted("*.internal"), "127.0.0.1": granted(), "[::ffff:127.0.0.1]": granted(), "localhost.example.test": granted("*.test"),
	} {
		_, err := ask(host, allow)
		want(t, err, capability.PermissionDenied, "a loopback address")
	}
	if s.requests.Load() != before {
		t.Error("a request came through a connection that was made for somebody else")
	}
	if _, err := ask("db.internal", granted("db.internal")); err != nil {
		t.Errorf("after others were refused: %v", err)
	}
	if n := s.connections.Load(); n > 2 {
		t.Errorf("%d connections for two hosts", n)
	}
}
