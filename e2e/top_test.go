package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// Someone looks at top while a guest works, the leader dies, and the node that top asks dies and comes back.
func TestTopShowsWhatHappensAndOutlivesItsNode(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	leader, via := c.Leader(), c.Followers()[0]
	x := rig.OnTerminal(t, 100, 30, exec.Command(product.Client, "top", "--addr", via.RPC()))
	x.Shows("leader " + leader.Name)
	x.Shows("none runs")

	started := via.Run("--name", "talker", actor(t), "--", "say", "hello from inside", "forever")
	x.Shows("instance.started")
	x.Shows("talker")
	x.Type("/talk\r")
	x.Shows(`with "talk"`)
	x.Type("\r") // looks at it
	x.Shows("INSTANCE " + started[0].InstanceID)
	x.Shows("hello from inside")
	x.Type("\x1b")
	x.Shows("EVENTS")

	leader.Kill()
	x.Until("it says that another one leads", func(screen string) bool {
		return strings.Contains(screen, "leads now; "+leader.Name+" did before")
	})

	via.Kill()
	x.Shows("no whole answer from " + via.RPC())
	leader.Restart()
	via.Restart()
	x.Until("it has an answer again", func(screen string) bool {
		return strings.Contains(screen, "nodes: 3 alive") && strings.Contains(screen, "talker")
	})
	x.Type("q")
	if code := x.Exited(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
