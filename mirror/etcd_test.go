package mirror

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// etcdProcess is a real etcd, with one member.
type etcdProcess struct {
	t        testing.TB
	addr     string // host:port for clients
	peerAddr string
	dir      string
	flags    []string
	output   *output
	process  *exec.Cmd // nil while it does not run
}

// newEtcd returns an etcd that has an address and does not run yet.
func newEtcd(t testing.TB, flags ...string) *etcdProcess {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if runtime.GOOS == "linux" && os.Geteuid() == 0 {
			t.Fatal("no etcd here: run make setup")
		}
		t.Skip("no etcd here: run make setup as root")
	}
	e := &etcdProcess{t: t, addr: freeAddr(t), peerAddr: freeAddr(t), dir: filepath.Join(t.TempDir(), "etcd"), flags: flags, output: &output{}}
	t.Cleanup(func() {
		e.kill()
		if t.Failed() {
			t.Logf("etcd at %s:\n%s", e.addr, e.output)
		}
	})
	return e
}

func startEtcd(t testing.TB, flags ...string) *etcdProcess {
	t.Helper()
	e := newEtcd(t, flags...)
	e.start()
	return e
}

func (e *etcdProcess) scheme() string {
	if strings.Contains(strings.Join(e.flags, " "), "--cert-file") {
		return "https://"
	}
	return "http://"
}

// start starts it and returns when it takes connections.
func (e *etcdProcess) start() {
	e.t.Helper()
	e.process = exec.Command("etcd", append([]string{
		"--name", "m", "--data-dir", e.dir, "--log-level", "warn",
		"--listen-client-urls", e.scheme() + e.addr, "--advertise-client-urls", e.scheme() + e.addr,
		"--listen-peer-urls", "http://" + e.peerAddr, "--initial-advertise-peer-urls", "http://" + e.peerAddr,
		"--initial-cluster", "m=http://" + e.peerAddr,
		"--heartbeat-interval", "20", "--election-timeout", "200",
	}, e.flags...)...)
	e.process.Stdout, e.process.Stderr = e.output, e.output
	e.process.SysProcAttr = endsWithParent()
	if err := e.process.Start(); err != nil {
		e.t.Fatal(err)
	}
	eventually(e.t, "etcd listens", func() bool {
		conn, err := net.Dial("tcp", e.addr)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (e *etcdProcess) kill() {
	if e.process == nil {
		return
	}
	_ = e.process.Process.Kill()
	_ = e.process.Wait()
	e.process = nil
}

func (e *etcdProcess) wipe() {
	e.kill()
	if err := os.RemoveAll(e.dir); err != nil {
		e.t.Fatal(err)
	}
}

func (e *etcdProcess) signal(s syscall.Signal) {
	e.t.Helper()
	if err := e.process.Process.Signal(s); err != nil {
		e.t.Fatal(err)
	}
}

// client returns a client of the test's own.
func (e *etcdProcess) client(more ...func(*clientv3.Config)) *clientv3.Client {
	e.t.Helper()
	cfg := clientv3.Config{Endpoints: []string{e.addr}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second}
	for _, change := range more {
		change(&cfg)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = client.Close() })
	return client
}

// keysAndValues returns all that an etcd holds.
func keysAndValues(client *clientv3.Client) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, "\x00", clientv3.WithFromKey())
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, kv := range resp.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all, nil
}

func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	const limit = 20 * time.Second
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

// output gathers what several goroutines write.
type output struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) count(part string) int { return strings.Count(o.String(), part) }

var _ fmt.Stringer = (*output)(nil)
