package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// atPrompt returns a shell's environment: the product in its PATH and a node to ask.
func atPrompt(t *testing.T, n *rig.Node) []string {
	t.Helper()
	return append(os.Environ(), "PATH="+filepath.Dir(product.Client)+":"+os.Getenv("PATH"), "WASMATRIX_ADDR="+n.RPC(), "PS1=READY> ", "HOME="+t.TempDir())
}

// need returns the path of a program that scripts/setup.sh installs, and skips the test where it is not there.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: run scripts/setup.sh", program)
	}
	return path
}

// Real shells, real keys: what is typed, Tab, and what is there then.
func TestTabCompletesCommandsAndWhatTheClusterKnows(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1, "--label", "zone=north")
	n1 := c.Get("n1")
	module := actor(t)
	id := n1.Run("--name", "webshop", module, "--", "forever")[0].InstanceID
	n1.Run("--name", "workers", "--count", "2", module, "--", "forever")
	hash := n1.Inspect(id).ModuleHash

	cases := []struct{ typed, want string }{
		{"wasmatrix ope", "wasmatrix operator"},
		{"wasmatrix operator raft tr", "wasmatrix operator raft transfer"},
		{"wasmatrix help node dr", "wasmatrix help node drain"},
		{"wasmatrix run --on-pa", "wasmatrix run --on-partition"},
		{"wasmatrix run --restart on-", "wasmatrix run --restart on-failure"},
		{"wasmatrix run --restart=al", "wasmatrix run --restart=always"},
		{"wasmatrix ps -o js", "wasmatrix ps -o json"},
		{"wasmatrix logs webs", "wasmatrix logs webshop"},
		{"wasmatrix logs --tail 3 wor", "wasmatrix logs --tail 3 workers"},
		{"wasmatrix ps --name wor", "wasmatrix ps --name workers"},
		{"wasmatrix stop webshop " + id[:len(id)-4], "wasmatrix stop webshop " + id},
		{"wasmatrix node drain n", "wasmatrix node drain n1"},
		{"wasmatrix ps --node n", "wasmatrix ps --node n1"},
		{"wasmatrix run --constraint zone=n", "wasmatrix run --constraint zone=north"},
		{"wasmatrix provider inspect mess", "wasmatrix provider inspect messaging"},
		{"wasmatrix run " + hash[:20], "wasmatrix run " + hash},
		{"wasmatrix module rm " + hash[:20], "wasmatrix module rm " + hash},
		{"wasmatrix capability grant webshop kv=kv:read,kv:wr", "wasmatrix capability grant webshop kv=kv:read,kv:write"},
		{"wasmatrix run one", "wasmatrix run one.wasm"},
		{"wasmatrix operator snapshot restore one.t", "wasmatrix operator snapshot restore one.txt"},
		{"wasmatrix agent --data-dir on", "wasmatrix agent --data-dir only/"},
	}
	dir := t.TempDir()
	for _, name := range []string{"one.wasm", "one.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "only"), 0o700); err != nil {
		t.Fatal(err)
	}

	shell := func(t *testing.T, setUp string, words ...string) *rig.Terminal {
		t.Helper()
		cmd := exec.Command(need(t, words[0]), words[1:]...)
		cmd.Dir, cmd.Env = dir, atPrompt(t, n1)
		x := rig.OnTerminal(t, 150, 50, cmd)
		x.Shows("READY>")
		x.Type(setUp + "; clear\r")
		x.Until("the screen is cleared", func(screen string) bool { return screen == "READY>" })
		return x
	}
	typeAll := func(t *testing.T, x *rig.Terminal) {
		t.Helper()
		for _, c := range cases {
			x.Type(c.typed + "\t")
			x.Until(c.typed+" is completed to "+c.want, func(screen string) bool {
				return strings.HasSuffix(screen, "READY> "+c.want) || strings.HasPrefix(screen, "READY> "+c.want+"\n")
			})
			x.Type("\x15") // kill the line
			x.Until("the line is gone", func(screen string) bool { return strings.HasSuffix(screen, "READY>") })
		}
	}
	t.Run("bash", func(t *testing.T) {
		typeAll(t, shell(t, "source <(wasmatrix completion bash)", "bash", "--noprofile", "--norc", "-i"))
	})
	t.Run("zsh", func(t *testing.T) {
		typeAll(t, shell(t, "autoload -U compinit; compinit -u -D; source <(wasmatrix completion zsh)", "zsh", "-f", "-i"))
	})
	// fish answers for itself: it asks its terminal more than tests of terminals answer.
	t.Run("fish", func(t *testing.T) {
		for _, c := range cases {
			cmd := exec.CommandContext(context.Background(), need(t, "fish"), "--private", "-c", "wasmatrix completion fish | source; complete -C $argv[1]", c.typed)
			cmd.Dir, cmd.Env = dir, atPrompt(t, n1)
			out, err := cmd.CombinedOutput()
			word := c.want[strings.LastIndex(c.want, " ")+1:]
			if err != nil || !strings.HasPrefix(string(out)+"\t", word) {
				t.Errorf("%s is completed to %q, want %s: %v", c.typed, out, word, err)
			}
		}
	})
}
