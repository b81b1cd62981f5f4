package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestMirrorInEtcdFollowsTheClusterAndItsLeader(t *testing.T) {
	etcd := startEtcd(t)
	c := product.Form(t, 3, "--etcd-endpoints", "http://"+etcd.Endpoints()[0])
	waitVoters(t, c, 3)
	wantMirror(t, c, etcd, 3)
	if result := c.Any().CLI("provider", "start", "kv", "--id", "shared", "--backend", "redis://me:s3cret@127.0.0.1:1"); result.Err() != nil {
		t.Fatal(result.Err())
	}
	provider := map[string]any{}
	rig.Wait(t, "the provider is copied", 5*time.Second, func() error {
		return json.Unmarshal([]byte(mirrored(t, etcd)["providers/shared"]), &provider)
	})
	if provider["backend"] != "redis://me:xxxxx@127.0.0.1:1" || provider["state"] != "running" {
		t.Errorf("the provider is %v", provider)
	}

	gone := c.Leader()
	gone.Kill()
	rig.Wait(t, "the next leader copies that the old one is lost", 20*time.Second, func() error {
		return rig.Want("nodes", strings.Count(fmt.Sprint(mirrored(t, etcd)), "nodes/"), 2)
	})
	wantMirror(t, c, etcd, 2)

	if _, err := etcd.Delete(t.Context(), "\x00", clientv3.WithFromKey()); err != nil {
		t.Fatal(err)
	}
	wantMirror(t, c, etcd, 2)
	gone.Restart()
	wantMirror(t, c, etcd, 3)
}

// wantMirror waits until etcd has that many nodes, all alive, and the cluster's providers.
func wantMirror(t *testing.T, c *rig.Cluster, etcd *clientv3.Client, nodes int) {
	t.Helper()
	rig.Wait(t, fmt.Sprintf("etcd knows %d nodes, and the providers", nodes), 20*time.Second, func() error {
		alive, known := 0, 0
		for key, value := range mirrored(t, etcd) {
			switch {
			case strings.HasPrefix(key, "nodes/") && strings.Contains(value, `"state":"alive"`):
				alive++
			case strings.HasPrefix(key, "providers/"):
				known++
			default:
				return fmt.Errorf("%s is %s", key, value)
			}
		}
		var providers []any
		if err := c.Any().TryJSON(&providers, "provider", "ls"); err != nil {
			return err
		}
		if err := rig.Want("providers", known, len(providers)); err != nil {
			return err
		}
		return rig.Want("nodes", alive, nodes)
	})
}

// mirrored returns all that etcd holds, without what all keys begin with.
func mirrored(t *testing.T, etcd *clientv3.Client) map[string]string {
	t.Helper()
	resp, err := etcd.Get(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range resp.Kvs {
		parts := strings.SplitN(string(kv.Key), "/", 4)
		if len(parts) != 4 || parts[1] != "wasmatrix" {
			t.Fatalf("key %s", kv.Key)
		}
		all[parts[3]] = string(kv.Value)
	}
	return all
}

// startEtcd starts an etcd for one test, and returns a client of it.
func startEtcd(t *testing.T) *clientv3.Client {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if runtime.GOOS == "linux" && os.Geteuid() == 0 {
			t.Fatal("no etcd here: run make setup")
		}
		t.Skip("no etcd here: run make setup as root")
	}
	addr := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().String()
	}
	clients, peers := addr(), addr()
	cmd := exec.CommandContext(t.Context(), "etcd", "--name", "m", "--data-dir", filepath.Join(t.TempDir(), "etcd"), "--log-level", "error",
		"--listen-client-urls", "http://"+clients, "--advertise-client-urls", "http://"+clients,
		"--listen-peer-urls", "http://"+peers, "--initial-advertise-peer-urls", "http://"+peers, "--initial-cluster", "m=http://"+peers)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // the test's context has ended it
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{clients}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	rig.Wait(t, "etcd answers", 20*time.Second, func() error {
		_, err := client.Get(t.Context(), "/")
		return err
	})
	return client
}
