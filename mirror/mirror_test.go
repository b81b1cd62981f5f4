package mirror

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
)

// waitCopied waits until etcd holds what the cluster knows, and nothing else.
func waitCopied(t *testing.T, s *simulated, client *clientv3.Client) {
	t.Helper()
	var last map[string]string
	defer func() {
		if t.Failed() {
			t.Logf("etcd holds %v", last)
		}
	}()
	eventually(t, "etcd holds what the cluster knows", func() bool {
		got, err := keysAndValues(client)
		if err != nil {
			return false
		}
		last = got
		_, same := sameAs(s.expected(), got)
		return same
	})
}

func TestChangesAreCopiedAtOnce(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	client := etcd.client()
	run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	waitCopied(t, s, client)
	for _, change := range []func(){
		func() { s.apply(t, putNode("n3")) },
		func() { s.hear("n3", "alive") },
		func() { s.apply(t, setNodeState("n2", pb.NodeState_NODE_STATE_DRAINING)) },
		func() { s.hear("n2", "dead") },
		func() { s.apply(t, setNodeState("n2", pb.NodeState_NODE_STATE_LEFT)) },
		func() { s.apply(t, removeNode("n3")) },
		func() { s.apply(t, putProvider("cache", "kv", "redis://other:6379", 3)) },
		func() { s.apply(t, removeProvider("cache")) },
	} {
		began := time.Now()
		change()
		waitCopied(t, s, client)
		if took := time.Since(began); took > lookEvery-settle {
			t.Errorf("a change took %s: it waited for the next look", took)
		}
	}
}

func TestNothingIsWrittenTwice(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	client := etcd.client()
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	r.waitUp()
	before, err := client.Get(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.hear("n1", "alive") // wakes the mirror, and changes nothing
		time.Sleep(2 * settle)
	}
	after, err := client.Get(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	if before.Header.Revision != after.Header.Revision {
		t.Errorf("etcd went from revision %d to %d", before.Header.Revision, after.Header.Revision)
	}
}

func TestNodesVanishWithTheirLeaseAndProvidersStay(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	client := etcd.client()
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	r.waitUp()
	r.stop()
	lease := clientv3.LeaseID(leaseOf(s.id, 1))
	left, err := client.TimeToLive(t.Context(), lease, clientv3.WithAttachedKeys())
	if err != nil {
		t.Fatal(err)
	}
	if left.GrantedTTL != int64(leaseTTL.Seconds()) || left.TTL <= 0 || len(left.Keys) != 2 {
		t.Fatalf("the lease has %d s of %d s left, and %d nodes", left.TTL, left.GrantedTTL, len(left.Keys))
	}
	if _, err := client.Revoke(t.Context(), lease); err != nil { // what time does
		t.Fatal(err)
	}
	got, err := keysAndValues(client)
	if err != nil {
		t.Fatal(err)
	}
	for key := range got {
		if !strings.HasPrefix(key, root+s.id+"/providers/") {
			t.Errorf("%s outlived the lease", key)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d providers are left", len(got))
	}
}

func TestLeaseIsTakenOutAgainWhereItWasLost(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	client := etcd.client()
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	r.waitUp()
	if _, err := client.Revoke(t.Context(), clientv3.LeaseID(leaseOf(s.id, 1))); err != nil {
		t.Fatal(err)
	}
	waitCopied(t, s, client)
}

func TestEtcdMayComeLater(t *testing.T) {
	t.Parallel()
	etcd := newEtcd(t)
	s := leading(t)
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	r.waitDown()
	etcd.start()
	waitCopied(t, s, etcd.client())
	r.waitUp()
	if n := r.log.count("\n"); n != 2 {
		t.Errorf("%d lines for two changes of state:\n%s", n, r.log)
	}
}

func TestWipedEtcdIsFilledAgain(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	client := etcd.client()
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	waitCopied(t, s, client)
	if _, err := client.Delete(t.Context(), "\x00", clientv3.WithFromKey()); err != nil {
		t.Fatal(err)
	}
	waitCopied(t, s, client)
	etcd.wipe()
	r.waitDown()
	etcd.start()
	waitCopied(t, s, client)
	r.waitUp()
}

func TestEtcdThatNeverAnswersHoldsNothingUp(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			if _, err := ln.Accept(); err != nil { // and never reads
				return
			}
		}
	}()
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hush-hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, etcd := range map[string]Etcd{
		"without a user": {Endpoints: []string{ln.Addr().String()}},
		"with a user":    {Endpoints: []string{ln.Addr().String()}, User: "me", PasswordFile: password},
		"with TLS":       {Endpoints: []string{"https://" + ln.Addr().String()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			early := run(t, leading(t), etcd)
			time.Sleep(50 * time.Millisecond) // in the first call
			early.stop()
			r := run(t, leading(t), etcd)
			r.waitDown()
			r.stop()
			if n := r.log.count("\n"); n != 1 {
				t.Errorf("%d lines for one change of state:\n%s", n, r.log)
			}
		})
	}
}

func TestFrozenEtcdIsDownUntilItThaws(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	r.waitUp()
	etcd.signal(syscall.SIGSTOP)
	r.waitDown()
	s.apply(t, putNode("n3"))
	etcd.signal(syscall.SIGCONT)
	r.waitUp()
	waitCopied(t, s, etcd.client())
	etcd.signal(syscall.SIGSTOP)
	defer etcd.signal(syscall.SIGCONT)
	s.apply(t, putNode("n4"))
	time.Sleep(2 * settle) // in a call
	r.stop()
}

func TestAHealthyMemberServesWhereAnotherIsFrozen(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts by itself, and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	etcd := startEtcd(t)
	s := leading(t)
	r := run(t, s, Etcd{Endpoints: []string{freeAddr(t), ln.Addr().String(), etcd.addr}})
	waitCopied(t, s, etcd.client())
	r.waitUp()
}

func TestUserAndCertificatesAreUsedAndReadAgain(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	etcd := startEtcd(t, "--cert-file", certs.server.cert, "--key-file", certs.server.key, "--client-cert-auth", "--trusted-ca-file", certs.ca)
	pair, err := tls.LoadX509KeyPair(certs.client.cert, certs.client.key)
	if err != nil {
		t.Fatal(err)
	}
	secure := func(c *clientv3.Config) {
		c.TLS = &tls.Config{RootCAs: certs.pool, Certificates: []tls.Certificate{pair}}
	}
	client := etcd.client(secure)
	const right = "p4ss:w0rd/with#all"
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := client.UserAdd(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := client.RoleAdd(ctx, "mirror"); return err },
		func(ctx context.Context) error { // the documented rights, and no more
			_, err := client.RoleGrantPermission(ctx, "mirror", root, clientv3.GetPrefixRangeEnd(root), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := client.UserAdd(ctx, "wasmatrix", right); return err },
		func(ctx context.Context) error {
			_, err := client.UserGrantRole(ctx, "wasmatrix", "mirror")
			return err
		},
		func(ctx context.Context) error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	password := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("not-the-one\n")
	s := leading(t)
	known := Etcd{
		Endpoints: []string{etcd.addr}, User: "wasmatrix", PasswordFile: password,
		CAFile: certs.ca, CertFile: certs.client.cert, KeyFile: certs.client.key,
	}
	r := run(t, s, known)
	r.waitDown()
	write(right + "\n")
	waitCopied(t, s, etcd.client(secure, func(c *clientv3.Config) { c.Username, c.Password = "root", "root" }))
	r.waitUp()

	stranger := known
	stranger.CertFile, stranger.KeyFile = "", ""
	refused := run(t, leading(t), stranger)
	refused.waitDown()
	for _, log := range []*output{r.log, refused.log} {
		if text := log.String(); strings.Contains(text, "not-the-one") || strings.Contains(text, "p4ss") {
			t.Errorf("the log shows a password: %s", text)
		}
	}
}

func TestOnlyTheLeaderConnects(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	s := leading(t)
	s.lead(0)
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	time.Sleep(3 * settle)
	if got, err := keysAndValues(etcd.client()); err != nil || len(got) != 0 || r.up() != 0 {
		t.Errorf("a follower wrote %v, %v", got, err)
	}
	s.lead(7)
	r.waitUp()
	s.lead(0)
	eventually(t, "the metric falls", func() bool { return r.up() == 0 })
}

// Both take themselves for the leader, and know different things.
func TestDeposedLeaderIsRefusedByEtcdItself(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	client := etcd.client()
	earlier := leading(t)
	old := run(t, earlier, Etcd{Endpoints: []string{etcd.addr}})
	old.waitUp()
	later := leading(t)
	later.id = earlier.id
	later.apply(t, putNode("n3"), removeProvider("cache"))
	later.lead(2)
	now := run(t, later, Etcd{Endpoints: []string{etcd.addr}})
	now.waitUp()
	waitCopied(t, later, client)
	before, err := client.Get(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	earlier.apply(t, putNode("n4"), putProvider("late", "kv", "", 9), removeProvider("kv"))
	eventually(t, "the earlier leader sees that it is none", func() bool { return old.mirror.state.Load() == idle })
	time.Sleep(3 * settle)
	waitCopied(t, later, client)
	after, err := client.Get(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	if before.Header.Revision != after.Header.Revision {
		t.Error("the earlier leader wrote something")
	}
}

// A whole cluster that was set back to an older state counts terms from there. Nobody keeps the later lease.
func TestFenceFallsWithTheLeaseOfWhoPutItUp(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	client := etcd.client()
	s := leading(t)
	s.lead(9)
	r := run(t, s, Etcd{Endpoints: []string{etcd.addr}})
	r.waitUp()
	s.lead(3)
	eventually(t, "the earlier term is refused", func() bool { return r.mirror.state.Load() == idle })
	if _, err := client.Revoke(t.Context(), clientv3.LeaseID(leaseOf(s.id, 9))); err != nil { // what time does
		t.Fatal(err)
	}
	r.waitUp()
	waitCopied(t, s, client)
}

func TestMirrorLeavesNoGoroutine(t *testing.T) { // not parallel: it counts
	etcd := startEtcd(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	round := func() {
		r := run(t, leading(t), Etcd{Endpoints: []string{etcd.addr}})
		r.waitUp()
		r.stop()
		absent := run(t, leading(t), Etcd{Endpoints: []string{freeAddr(t)}})
		absent.waitDown()
		absent.stop()
		hung := run(t, leading(t), Etcd{Endpoints: []string{silent.Addr().String()}})
		time.Sleep(settle)
		hung.stop()
	}
	round() // what starts once for all
	before := runtime.NumGoroutine()
	for range 3 {
		round()
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
}
