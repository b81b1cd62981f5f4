package main

import (
	"fmt"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/browser"
)

const (
	// pageLoads is how often each view is opened.
	pageLoads = 15
	// pageChanges is how many crashes are waited for on an open page.
	pageChanges = 40
)

// firstPaint is when the browser first showed what is on the page, in milliseconds since it was told to go there.
const firstPaint = `new Promise((done) => new PerformanceObserver((list) => {
	for (const e of list.getEntries()) if (e.name === "first-contentful-paint") done(e.startTime);
}).observe({type: "paint", buffered: true}))`

// statusPage measures the status page in a real browser, with more and more instances on real nodes. It is that of a
// node that does not lead.
func statusPage(b *bench) {
	c := b.formed(3)
	wasm := b.small()
	hash := b.warm(c, wasm)
	client := b.dial(c.Leader())
	at := c.Followers()[0]
	chromium := browser.Start(b)
	running := 0
	for _, step := range []struct {
		instances int
		promised  time.Duration
	}{{1000, 200 * time.Millisecond}, {10_000, 500 * time.Millisecond}} {
		for running < step.instances {
			b.start(client, hash, 500)
			running += 500
		}
		settle(5 * time.Second)
		for _, view := range []string{"/", "/instances", "/instances?q=idle&sort=-started&page=5"} {
			var took []time.Duration
			p := chromium.Tab(1280, 900)
			for range pageLoads {
				p.Go(at.HTTP() + view)
				took = append(took, time.Duration(browser.Eval[float64](p, firstPaint)*float64(time.Millisecond)))
				p.Shows("live")
				p.Go("about:blank")
			}
			what := fmt.Sprintf("first paint of the page %s with %d instances", view, step.instances)
			report(b, what+", median", quantile(took, 0.5), step.promised, "")
			report(b, "the same, 9 of 10", quantile(took, 0.9), 0, "")
			p.Close()
		}
		took := b.crashesSeen(c, chromium, at, wasm)
		report(b, fmt.Sprintf("a crash on a node until it is on an open page, with %d instances, median", step.instances), quantile(took, 0.5), 300*time.Millisecond, "")
		report(b, fmt.Sprintf("the same, worst of %d", pageChanges), quantile(took, 1), 300*time.Millisecond, "")
	}
}

// crashesSeen has instances crash, one after the other, and returns how long after each the page showed it: by the
// time of the event, which the agent gives it, and by the frame that the browser drew it in.
func (b *bench) crashesSeen(c *rig.Cluster, chromium *browser.Browser, at *rig.Node, wasm string) []time.Duration {
	p := chromium.Open(at.HTTP()+"/events?type=instance.crashed", 1280, 900)
	defer p.Close()
	p.Shows("live")
	p.Do(chromedp.Evaluate[chromedp.Void](`
		window.known = new Set([...document.querySelectorAll(".happenings li")].map((li) => li.dataset.key));
		window.took = [];
		new MutationObserver(() => requestAnimationFrame(() => {
			for (const li of document.querySelectorAll(".happenings li")) {
				if (known.has(li.dataset.key)) continue;
				known.add(li.dataset.key);
				took.push(Date.now() - Date.parse(li.querySelector("time").dateTime));
			}
		})).observe(document.querySelector("main"), {subtree: true, childList: true});`))
	for n := range pageChanges {
		// Not at the beat of what the page does by itself.
		c.Any().Run("--name", "doomed", "--restart", "never", "--memory", "1MiB", wasm, "--", "sleep", fmt.Sprint(100+(n*37)%250), "trap")
		p.Wait(fmt.Sprintf("took.length >= %d", n+1))
	}
	var all []time.Duration
	for _, ms := range browser.Eval[[]float64](p, "took") {
		all = append(all, time.Duration(ms*float64(time.Millisecond)))
	}
	return all
}
