package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// module is the contract's module.
type module struct {
	ModuleHash    string     `json:"module_hash"`
	SizeBytes     int        `json:"size_bytes"`
	StoredAt      *time.Time `json:"stored_at"`
	Nodes         []string   `json:"nodes"`
	Instances     int        `json:"instances"`
	LiveInstances int        `json:"live_instances"`
}

// removal is what module rm prints.
type removal struct {
	ModuleHash string   `json:"module_hash"`
	Nodes      []string `json:"nodes"`
	Failures   []struct {
		Node      string `json:"node"`
		ErrorCode string `json:"error_code"`
	} `json:"failures"`
}

// modules returns what the cluster holds, by hash.
func modules(t *testing.T, via *rig.Node) map[string]module {
	t.Helper()
	var list []module
	via.JSON(&list, "module", "ls")
	byHash := map[string]module{}
	for _, m := range list {
		byHash[m.ModuleHash] = m
	}
	return byHash
}

func modulePath(n *rig.Node, hash string) string {
	return filepath.Join(n.DataDir, "modules", strings.TrimPrefix(hash, "sha256:")+".wasm")
}

func loseModule(t *testing.T, n *rig.Node, hash string) {
	t.Helper()
	if err := os.Remove(modulePath(n, hash)); err != nil {
		t.Fatal(err)
	}
}

func TestNodesGetBackTheModulesThatTheyLost(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	runs := c.Any().Run("--name", "steady", actor(t), "--", "forever")[0]
	hash := runs.ModuleHash
	var away, aside *rig.Node // two followers: one dies, the other loses its file while it runs
	for _, n := range c.Followers() {
		if n.Name == runs.NodeName || away != nil {
			aside = n
		} else {
			away = n
		}
	}
	away.Kill()
	if err := os.RemoveAll(filepath.Join(away.DataDir, "modules")); err != nil {
		t.Fatal(err)
	}
	away.Restart()
	c.WaitFormed(3)
	loseModule(t, aside, hash)
	took := rig.Wait(t, "three copies again", 20*time.Second, func() error {
		for _, n := range c.Nodes() {
			if _, err := os.Stat(modulePath(n, hash)); err != nil {
				return err
			}
		}
		return nil
	})
	t.Logf("repaired after %s", took.Round(time.Millisecond))
	if m := modules(t, away)[hash]; strings.Join(m.Nodes, " ") != "n1 n2 n3" || m.LiveInstances != 1 || m.SizeBytes == 0 || m.StoredAt == nil {
		t.Errorf("module ls says %+v", m)
	}
	if i := c.Any().Inspect(runs.InstanceID); i.Status != "running" || i.Generation != runs.Generation {
		t.Errorf("the instance is %+v", i)
	}
}

func TestModuleIsRemovedEverywhereUnlessItIsReferenced(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	path := actor(t)
	var pushed struct {
		ModuleHash string `json:"module_hash"`
	}
	c.Any().JSON(&pushed, "module", "push", path)
	hash := pushed.ModuleHash
	if m := modules(t, c.Any())[hash]; len(m.Nodes) != 3 || m.Instances != 0 {
		t.Fatalf("module ls says %+v", m)
	}
	if refused := c.Any().CLI("module", "rm", "ffffffff"); refused.Code != 1 || refused.Reported() == nil || refused.Reported().Code != "MODULE_NOT_FOUND" {
		t.Errorf("an unknown hash: %+v", refused)
	}

	dead := c.Followers()[0]
	dead.Kill()
	rig.Wait(t, "the others to see that "+dead.Name+" is dead", 20*time.Second, func() error {
		members, err := c.Any().TryMembers()
		if err != nil {
			return err
		}
		return rig.Want("its state", members[dead.Name].State, "dead")
	})
	var gone removal
	asked := c.Any().CLI("module", "rm", hash[:len("sha256:")+10])
	if asked.Code != 0 || !strings.Contains(asked.Stderr, dead.Name) {
		t.Errorf("rm exits with %d and says %q", asked.Code, asked.Stderr)
	}
	if err := json.Unmarshal([]byte(asked.Stdout), &gone); err != nil {
		t.Fatal(err)
	}
	if gone.ModuleHash != hash || len(gone.Nodes) != 2 || len(gone.Failures) != 1 || gone.Failures[0].Node != dead.Name {
		t.Errorf("rm says %+v", gone)
	}
	for _, n := range c.Running() {
		if _, err := os.Stat(modulePath(n, hash)); !os.IsNotExist(err) {
			t.Errorf("%s holds it still: %v", n.Name, err)
		}
	}
	if _, err := c.Any().TryRun("--name", "late", hash, "--", "forever"); err == nil || !strings.Contains(err.Error(), "MODULE_NOT_FOUND") {
		t.Errorf("a start of what was removed: %v", err)
	}

	one := c.Any().Run("--name", "steady", path, "--", "forever")[0]
	for _, status := range []string{"running", "stopped"} {
		refused := c.Any().CLI("module", "rm", hash)
		e := refused.Reported()
		if refused.Code != 1 || e == nil || e.Code != "INVALID_REQUEST" || !strings.Contains(e.Message, fmt.Sprintf("steady (%s)", one.InstanceID)) {
			t.Errorf("removed while an instance is %s: %+v", status, refused)
		}
		c.Any().CLI("stop", one.InstanceID)
	}
	if m := modules(t, c.Any())[hash]; len(m.Nodes) != 2 || m.Instances != 1 || m.LiveInstances != 0 {
		t.Errorf("module ls says %+v", m)
	}
}
