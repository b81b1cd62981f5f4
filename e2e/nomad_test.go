package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// Alone, for it takes Nomad's ports and the node's on 127.0.0.1.
func TestNomadRunsTheJob(t *testing.T) {
	nomad, err := exec.LookPath("nomad")
	if err != nil {
		t.Skip("no nomad on this machine: the job did not run (TestNomadJobIsWhatNomadsDocumentationHas has looked at its file)")
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var said bytes.Buffer
	agent := exec.CommandContext(t.Context(), nomad, "agent", "-dev", "-bind", "127.0.0.1") // raw_exec is on in -dev
	agent.Stdout, agent.Stderr = &said, &said
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = agent.Process.Kill()
		_ = agent.Wait() // it was killed
		if t.Failed() {
			t.Logf("nomad said:\n%s", said.String())
		}
	}()
	run := func(args ...string) error {
		out, err := exec.CommandContext(t.Context(), nomad, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("nomad %v: %w\n%s", args, err, out)
		}
		return nil
	}
	rig.Wait(t, "Nomad to take the job", time.Minute, func() error {
		return run("job", "run", "-detach", "-var", "expect=1", "-var", "binary="+product.Client, "-var", "data_dir="+filepath.Join(dir, "data"),
			filepath.Join(root, "deploy", "nomad", "wasmatrix.nomad.hcl"))
	})
	rig.Wait(t, "the node to be ready", time.Minute, func() error {
		resp, err := http.Get("http://127.0.0.1:7402/readyz")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return rig.Want("readiness", resp.StatusCode, http.StatusOK)
	})
	members, err := exec.CommandContext(t.Context(), product.Client, "members", "-o", "json").CombinedOutput()
	if err != nil || !bytes.Contains(members, []byte(`"state": "alive"`)) {
		t.Errorf("members: %v\n%s", err, members)
	}
	if err := run("job", "stop", "-purge", "wasmatrix"); err != nil {
		t.Error(err)
	}
}
