package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/browser"
)

// One page stays open in a real browser through what happens to a real cluster of three.
func TestOpenPageShowsCrashesAndOutlivesItsLeaderAndItsNode(t *testing.T) {
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	first, seenBy := c.Leader(), c.Followers()[0]
	b := browser.Start(t)
	p := b.Open(seenBy.HTTP()+"/", 1200, 900)
	p.Shows("live", "All is well", first.Name)
	p.Do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true`))
	still := func(what string) {
		t.Helper()
		if !browser.Eval[bool](p, `window.sameDocument === true`) {
			t.Errorf("the page was loaded anew %s", what)
		}
	}

	one := seenBy.Run("--name", "loud", "--restart", "never", actor(t), "--", "say", `<script>window.harmed = 1</script>`, "err", "\x1b[31mred \u202e", "forever")[0]
	p.Wait(`document.querySelector('.figures li[data-state="running"] b').innerText === "1"`)
	seenBy.Run("--name", "doomed", "--restart", "never", actor(t), "--", "sleep", "200", "trap")
	p.Shows("doomed", "1 instance crashed and is not started again", "Something is wrong")
	still("by a crash")

	// What the guest wrote is text, whichever node it is on.
	output := b.Open(seenBy.HTTP()+"/instances/"+one.InstanceID, 1200, 900)
	output.Shows("live", "instance.started")
	output.Wait(`document.querySelectorAll("#log li").length === 2`)
	lines := browser.Eval[[]string](output, `[...document.querySelectorAll("#log li bdi")].map((line) => line.textContent)`)
	slices.Sort(lines) // stdout and stderr are two streams
	if want := []string{`<script>window.harmed = 1</script>`, `␛[31mred \u202e`}; !slices.Equal(lines, want) {
		t.Errorf("the output is %q, want %q", lines, want)
	}
	if browser.Eval[bool](output, `Boolean(window.harmed)`) {
		t.Error("the page ran what a guest wrote")
	}

	// Another leader, and its data.
	first.Kill()
	p.Wait(fmt.Sprintf(`!document.querySelector(".strip dd a").innerText.includes(%q) && !document.body.innerText.includes("No leader answers.")`, first.Name))
	p.Shows("Node " + first.Name + " is dead")
	still("by another leader")
	if second := c.Leader(); !strings.Contains(browser.Eval[string](p, `document.querySelector(".strip").innerText`), second.Name) {
		t.Errorf("the page does not say that %s leads", second.Name)
	}
	first.Restart()
	p.Wait(`!document.body.innerText.includes("is dead")`)

	// The node that serves the page goes, and comes back.
	seenBy.Kill()
	p.Wait(`document.getElementById("lost").innerText.startsWith("Not connected since")`)
	seenBy.Restart()
	p.Wait(`document.getElementById("lost").innerText === "" && document.getElementById("pulse").innerText === "live"`)
	c.WaitFormed(3)
	after := seenBy.Run("--name", "afterwards", actor(t), "--", "forever")[0]
	p.Shows("afterwards")
	still("by a restart of its node")
	p.Go(seenBy.HTTP() + "/instances?q=" + after.InstanceID)
	p.Shows("afterwards", "1 to 1 of 1")
	for _, page := range []*browser.Page{p, output} {
		if faults := page.Faults(); len(faults) > 0 {
			t.Errorf("%q", faults)
		}
	}
}

// What is on the page of a quarter of an hour: each node shows the same, and the numbers are those of what ran.
func TestPageOfEachNodeShowsLoadAndCalls(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 2)
	c.Any().Run("--name", "steady", "--count", "4", actor(t), "--", "tick", "100")
	b := browser.Start(t)
	for _, n := range c.Nodes() {
		p := b.Open(n.HTTP()+"/nodes", 1200, 900)
		p.Wait(`[...document.querySelectorAll(".tile")].length === 2 && [...document.querySelectorAll(".tile .load")].every((load) => /processors/.test(load.innerText) && /resident/.test(load.innerText))`)
		p.Go(n.HTTP() + "/")
		p.Wait(`document.querySelectorAll(".chart").length >= 4 && document.querySelector(".chart .read").innerText.includes("running 4")`)
		p.Go(n.HTTP() + "/providers")
		p.Shows("raft:", "none in the last minute")
	}
	var history struct {
		Samples []struct {
			Instances map[string]int `json:"instances"`
		} `json:"samples"`
	}
	rig.Wait(t, "a sample of four running instances", 30e9, func() error {
		getJSON(t, c.Any().HTTP()+"/v1/history", &history)
		if n := len(history.Samples); n == 0 || history.Samples[n-1].Instances["running"] != 4 {
			return fmt.Errorf("%+v", history)
		}
		return nil
	})
}
