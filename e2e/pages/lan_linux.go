package pages

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// lan is a few hosts on one wire, with a shell on each.
type lan map[string]*shell

// newLAN returns hosts at 10.0.0.N, where N is what the name ends with. Their shells are in dir, and have the commands that are in bin.
func newLAN(t *testing.T, dir, bin string, hosts ...string) lan {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("hosts of their own take root")
	}
	for _, tool := range []string{"ip", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("hosts of their own take iproute2 and util-linux: %v", err)
		}
	}
	wire := namespace(t, "wire")
	ip(t, "-n", wire, "link", "add", "wire", "type", "bridge")
	ip(t, "-n", wire, "link", "set", "wire", "up")
	l := lan{}
	for _, host := range hosts {
		name := namespace(t, host)
		_, number, _ := strings.Cut(host, "-")
		ip(t, "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", host, "netns", wire)
		ip(t, "-n", wire, "link", "set", host, "master", "wire", "up")
		ip(t, "-n", name, "addr", "add", "10.0.0."+number+"/24", "dev", "eth0")
		ip(t, "-n", name, "link", "set", "eth0", "up")
		ip(t, "-n", name, "link", "set", "lo", "up")
		l[host] = login(t, name, host, dir, bin)
	}
	return l
}

// namespace makes a network namespace that lasts as long as the test. Its name is one of those that the rig sweeps away where a test
// was killed.
func namespace(t *testing.T, of string) string {
	t.Helper()
	name := fmt.Sprintf("wasmatrix-%d-%s", os.Getpid(), of)
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "delete", name) })
	return name
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if said, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}
