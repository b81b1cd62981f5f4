package kv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// patience is how long a server may take to start.
const patience = 30 * time.Second

// program returns the path of a server that scripts/setup.sh installs. Elsewhere than there, a test is left out
// where it is missing.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case runtime.GOOS == "linux" && os.Getuid() == 0:
		t.Fatalf("%s is missing: run `make setup`", name)
	default:
		t.Skipf("%s is missing", name)
	}
	return path
}

// process is a server of another make, which can be ended and started again on what it had.
type process struct {
	t    *testing.T
	addr string
	args []string
	cmd  *exec.Cmd
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(p.t.TempDir(), "log"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// Pdeathsig is of the thread that starts it: that thread is to stay.
	started := make(chan error)
	ended := p.t.Context().Done()
	go func() {
		runtime.LockOSThread()
		started <- p.cmd.Start()
		<-ended
	}()
	if err := <-started; err != nil {
		p.t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for {
		conn, err := net.Dial("tcp", p.addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			p.t.Fatalf("%s does not answer: %v\n%s", p.args[0], err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func startRedis(t *testing.T, args ...string) *process {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	p := &process{t: t, addr: addr, args: append([]string{
		program(t, "redis-server"), "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--appendonly", "yes",
	}, args...)}
	p.start()
	t.Cleanup(p.stop)
	return p
}

func startEtcd(t *testing.T) *process {
	t.Helper()
	client, peer := freeAddr(t), freeAddr(t)
	p := &process{t: t, addr: client, args: []string{
		program(t, "etcd"), "--data-dir", t.TempDir(),
		"--listen-client-urls", "http://" + client, "--advertise-client-urls", "http://" + client,
		"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
		"--initial-cluster", "default=http://" + peer,
		// The shortest lease depends on it: with the default, a key lives for two seconds at least.
		"--heartbeat-interval", "10", "--election-timeout", "100",
	}}
	p.start()
	t.Cleanup(p.stop)
	return p
}

// natsServer is a NATS server in this process.
type natsServer struct {
	t      *testing.T
	o      *server.Options
	server *server.Server
}

func startNATS(t *testing.T, change func(*server.Options)) *natsServer {
	t.Helper()
	n := &natsServer{t: t, o: &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	}}
	if change != nil {
		change(n.o)
	}
	n.start()
	n.o.Port = n.server.Addr().(*net.TCPAddr).Port
	t.Cleanup(n.stop)
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	s, err := server.NewServer(n.o)
	if err != nil {
		n.t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(patience) {
		n.t.Fatal("the NATS server does not answer")
	}
	n.server = s
}

func (n *natsServer) stop() {
	n.server.Shutdown()
	n.server.WaitForShutdown()
}

func (n *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.o.Port) }
