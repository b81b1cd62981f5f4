package web

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wasmatrix/wasmatrix/internal/browser"
	pb "github.com/wasmatrix/wasmatrix/proto/wasmatrix/v1"
	"github.com/wasmatrix/wasmatrix/rpc"
)

// What a browser makes of the page, in a real one.

// busyCluster has something of everything, for each view to show.
func busyCluster(instances int) *plainCluster {
	c := &plainCluster{
		members: []*pb.Member{
			{NodeId: "id-a", Name: "a", GossipAddr: "10.0.0.1:7400", RpcAddr: "10.0.0.1:7401", HttpAddr: "10.0.0.1:7402", Role: "leader", State: "alive", Instances: 5, Labels: map[string]string{"zone": "north", "disk": "ssd"}, Version: "test", CommittedMemoryBytes: 320 << 20},
			{NodeId: "id-b", Name: "b", Role: "voter", State: "suspect", Version: "test"},
			{NodeId: "id-c", Name: "c", Role: "agent", State: "dead", Version: "test"},
		},
		providers: []*pb.ProviderStatus{{
			Provider: &pb.Provider{ProviderId: "kv", ProviderType: "kv", Config: map[string]string{"backend": "raft:"}, State: pb.ProviderState_PROVIDER_STATE_RUNNING},
			Nodes:    []string{"a", "b"},
		}, {
			Provider: &pb.Provider{ProviderId: "cache", ProviderType: "kv", Config: map[string]string{"backend": "redis://10.0.0.9", "prefix": "x"}, State: pb.ProviderState_PROVIDER_STATE_FAILING, Constraints: map[string]string{"disk": "ssd"}},
			Failures: map[string]string{"a": "dial 10.0.0.9:6379: connection refused"},
		}},
	}
	c.history = quarterOfAnHour(time.Now(), 100)
	c.members[0].Limits, c.members[0].Vitals = &pb.NodeLimits{MaxInstances: 100, MaxMemoryBytes: 330 << 20, MaxCpuMillicores: 2000},
		&pb.NodeVitals{CpuUsedCores: 1.5, CpuCores: 2, ResidentBytes: 200 << 20, GuestCpuUsedCores: 1.25, GuestMemoryBytes: 150 << 20}
	names := []string{"web", "worker", "import", "mail"}
	for n := range instances {
		name := names[n%len(names)]
		one := &pb.Instance{
			InstanceId: fmt.Sprintf("01a2-%06d", n), NodeId: "id-a", NodeName: "a", Status: pb.InstanceStatus_INSTANCE_STATUS_RUNNING, Generation: 1,
			Spec: &pb.InstanceSpec{
				Name: name + "-" + strconv.Itoa(n), ModuleHash: "sha256:" + strings.Repeat("ab", 32), Args: []string{"serve", "--slow"}, MemoryLimitBytes: 64 << 20,
				RestartPolicy: &pb.RestartPolicy{PolicyType: pb.PolicyType_POLICY_TYPE_ALWAYS, Backoff: durationpb.New(time.Second)},
			},
			Grants:    []*pb.Grant{{CapabilityId: "kv", ProviderType: "kv", Permissions: []string{"kv:read", "kv:write"}}},
			CreatedAt: timestamppb.New(noon.Add(time.Duration(n) * time.Second)), StartedAt: timestamppb.New(time.Now().Add(-time.Duration(n) * time.Second)),
			Restarts: uint32(n % 7),
			Usage: &pb.Usage{
				CpuTime: durationpb.New(time.Duration(1234*n) * time.Second), Fuel: uint64(n) * 123_456_789_012_345, CpuUsedCores: 1 / float64(n+1),
				MemoryBytes: uint64(n%64)<<20 + 345_678, MemoryPeakBytes: 63<<20 + 345_678,
			},
		}
		one.Spec.Fuel, one.Spec.CpuMillicores, one.Spec.CpuHard = math.MaxUint64, 250, true
		if n%50 == 3 {
			one.Status, one.ExitCode, one.LastError = pb.InstanceStatus_INSTANCE_STATUS_CRASHED, proto.Int32(3), "exit code 3"
		}
		c.instances = append(c.instances, one)
		c.events = append(c.events, &pb.Event{
			EventId: "id-a/1/" + strconv.Itoa(n+1), Time: one.GetStartedAt(), Type: "instance.started", NodeId: "id-a", InstanceId: one.GetInstanceId(), Name: one.GetSpec().GetName(),
		})
	}
	return c
}

// crash has the first instance crash, as its agent would tell it.
func (c *plainCluster) crash(words string) {
	one := proto.Clone(c.all()[0]).(*pb.Instance)
	one.Status, one.LastError, one.ExitCode = pb.InstanceStatus_INSTANCE_STATUS_CRASHED, words, proto.Int32(9)
	c.replace(one)
	_, _, _, _ = c.state()
	c.happen(&pb.Event{
		EventId: "id-a/1/" + strconv.Itoa(len(c.events)+1), Time: timestamppb.Now(), Type: "instance.crashed", NodeId: "id-a",
		InstanceId: one.GetInstanceId(), Name: one.GetSpec().GetName(), Details: map[string]string{"error": words},
	})
}

// eachView is an address of each.
var eachView = []string{"/", "/instances", "/instances/01a2-000003", "/nodes", "/nodes/a", "/providers", "/events"}

func TestOpenPageFollowsAndKeepsWhatItsVisitorDid(t *testing.T) {
	c := busyCluster(400)
	p := browser.Start(t).Open(serve(t, c)+"/instances?status=all", 1200, 600)
	p.Shows("live", "1 to 100 of 400")
	// Somebody reads further down, has marked a row and types into the filter.
	p.Do(chromedp.Evaluate[chromedp.Void](`
		window.first = document.querySelector("tbody tr");
		window.marked = document.querySelectorAll("tbody tr")[40];
		document.getElementById("q").focus({preventScroll: true});
		getSelection().selectAllChildren(marked.querySelector(".id"));
		scrollTo(0, 700);`))
	c.crash("it fell over")
	p.Shows("it fell over")
	p.Wait(`document.querySelector(".chips").innerText.includes("crashed 9")`)
	for what, holds := range map[string]string{
		"the row is the one that was there": `document.querySelector("tbody tr") === first && first.querySelector(".state").textContent === "crashed"`,
		"the focus is where it was":         `document.activeElement.id === "q"`,
		"the page is scrolled as it was":    `scrollY === 700`,
		"what was marked is marked":         `getSelection().toString() === marked.querySelector(".id").textContent`,
	} {
		if !browser.Eval[bool](p, holds) {
			t.Errorf("not so: %s", what)
		}
	}
	if faults := p.Faults(); len(faults) > 0 {
		t.Errorf("%q", faults)
	}
}

func TestTenThousandInstancesAreFoundSortedAndPagedThrough(t *testing.T) {
	p := browser.Start(t).Open(serve(t, busyCluster(10_000))+"/instances", 1200, 800)
	p.Shows("1 to 100 of 9,800") // those that did not crash
	p.Do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true`))
	rows := func() int { return browser.Eval[int](p, `document.querySelectorAll("tbody tr").length`) }
	if n := rows(); n != perPage {
		t.Errorf("%d rows", n)
	}
	// A click loads no new page, and the address can be given to others.
	p.Do(chromedp.Click(chromedp.CSS(`th.restarts a`)))
	p.Wait(`document.querySelector("th.restarts").getAttribute("aria-sort") === "descending" && document.querySelector("td.restarts").innerText === "6"`)
	p.Do(chromedp.Click(chromedp.CSS(`a[rel="next"]`)))
	p.Shows("101 to 200 of 9,800")
	p.Do(chromedp.SendKeys(chromedp.CSS(`#q`), "mail-99"))
	p.Shows("1 to ", " of 28") // names that begin so
	if at := browser.Eval[string](p, `location.search`); !strings.Contains(at, "q=mail-99") || !strings.Contains(at, "sort=-restarts") || strings.Contains(at, "page=") {
		t.Errorf("the address is %s", at)
	}
	p.Do(chromedp.Click(chromedp.CSS(`.chips a[data-key="crashed"]`)))
	p.Wait(`document.querySelector(".chips [aria-current]").dataset.key === "crashed"`)
	if !browser.Eval[bool](p, `window.sameDocument === true`) {
		t.Error("a new page was loaded")
	}
	p.Do(chromedp.Evaluate[chromedp.Void](`history.back()`))
	p.Wait(`document.querySelector(".chips [aria-current]").dataset.key === "live"`)
	p.Do(chromedp.Reload())
	p.Shows(" of 28")
}

// hostileOutput is what a guest may write to make somebody's browser or terminal do what it wants.
var hostileOutput = []string{
	`<script>window.harmed = "script"</script>`,
	`<img src=x onerror="window.harmed = 'image'">`,
	`</bdi></li></ol></section><h1>Forged</h1>`,
	`<a href="javascript:window.harmed='link'">click</a>`,
	`{{.}} ${window.harmed = 1} &lt;b&gt;`,
	"\x1b[2J\x1b[31mred\x07\x00 end",
	"\u202egnp.exe\u2066 \u2028 line",
	"broken \xff\xfe\xc3 bytes",
}

func TestWhatGuestsWriteIsShownAndNeverObeyed(t *testing.T) {
	c := busyCluster(8)
	one := c.instances[3]
	one.Spec.Name, one.LastError = hostileOutput[0], hostileOutput[1]+hostileOutput[5]
	one.Spec.Args = []string{hostileOutput[2], hostileOutput[6]}
	c.happen(&pb.Event{EventId: "id-a/1/99", Time: timestamppb.Now(), Type: "instance.crashed", NodeId: "id-a", InstanceId: one.GetInstanceId(), Name: hostileOutput[0], Details: map[string]string{"error": hostileOutput[1]}})
	for _, line := range hostileOutput {
		c.write(one.GetInstanceId(), "stdout", []byte(line))
	}
	base := serve(t, c)
	p := browser.Start(t).Open(base+"/instances/"+one.GetInstanceId(), 1200, 900)
	p.Shows("live")
	for _, line := range hostileOutput { // once more, as they come to an open page
		c.write(one.GetInstanceId(), "stderr", []byte(line))
	}
	p.Wait(fmt.Sprintf(`document.querySelectorAll("#log li").length === %d`, 2*len(hostileOutput)))
	lines := browser.Eval[[]string](p, `[...document.querySelectorAll("#log li bdi")].map((line) => line.textContent)`)
	want := append(append([]string{}, hostileOutput[:5]...), "␛[2J␛[31mred␇␀ end", `\u202egnp.exe\u2066 \u2028 line`, "broken \ufffd bytes")
	for n, line := range lines {
		if line != want[n%len(want)] {
			t.Errorf("line %d is %q, want %q", n, line, want[n%len(want)])
		}
	}
	for _, path := range []string{"/instances/" + one.GetInstanceId(), "/", "/instances?status=all", "/events", "/nodes/a"} {
		p.Go(base + path)
		p.Shows("live", "window.harmed")
		if browser.Eval[bool](p, `Boolean(window.harmed || document.querySelector("main script, main img, main a[href^=javascript]") || document.querySelectorAll("h1").length !== 1)`) {
			t.Errorf("%s: what a guest wrote became part of the page", path)
		}
	}
	if faults := p.Faults(); len(faults) > 0 {
		t.Errorf("%q", faults)
	}
}

func TestPageSaysThatItIsNotConnectedAndComesBack(t *testing.T) {
	c := busyCluster(4)
	first := newServer(t, "127.0.0.1:0", c)
	stop := runUntil(t, first)
	addr := first.Addr().String()
	p := browser.Start(t).Open("http://"+addr+"/", 1200, 800)
	p.Shows("live")
	p.Do(chromedp.Evaluate[chromedp.Void](`window.sameDocument = true`))
	stop()
	p.Wait(`/^Not connected since \d\d:\d\d:\d\d; trying again/.test(document.getElementById("lost").innerText) && document.querySelector("[data-lost]")`)
	c.crash("while nobody looked")
	run(t, newServer(t, addr, c))
	p.Wait(`document.getElementById("lost").innerText === "" && !document.querySelector("[data-lost]")`)
	p.Shows("while nobody looked")
	if !browser.Eval[bool](p, `window.sameDocument === true`) {
		t.Error("a new page was loaded")
	}
}

func TestPageStaysWhileThereIsNoLeaderAndSaysSo(t *testing.T) {
	c := busyCluster(4)
	p := browser.Start(t).Open(serve(t, c)+"/instances", 1200, 800)
	p.Shows("live", "web-0")
	c.setDown(rpc.Errorf(rpc.NoLeader, "nobody leads just now"))
	p.Shows("No leader answers.", "nobody leads just now", "web-0")
	c.setDown(nil)
	p.Wait(`!document.body.innerText.includes("No leader answers.")`)
}

func TestNothingIsWiderThanAPhone(t *testing.T) {
	c := busyCluster(60)
	c.instances[3].Spec.Name = strings.Repeat("long", 40)
	c.instances[3].LastError = strings.Repeat("wide ", 60) + strings.Repeat("x", 300)
	c.write("01a2-000003", "stdout", []byte(strings.Repeat("y", 500)))
	base := serve(t, c)
	p := browser.Start(t).Tab(390, 844)
	for _, path := range eachView {
		p.Go(base + path)
		p.Shows("live")
		if wide := browser.Eval[int](p, `document.documentElement.scrollWidth`); wide > 390 {
			t.Errorf("%s is %d wide", path, wide)
		}
	}
}

func TestPageIsUsedByKeyboard(t *testing.T) {
	p := browser.Start(t).Open(serve(t, busyCluster(20))+"/instances", 1200, 800)
	p.Shows("live")
	press := func(keys string) { p.Do(chromedp.KeyEvent(keys)) }
	press(kb.Tab)
	p.Wait(`document.activeElement.className === "skip" && document.activeElement.getBoundingClientRect().width > 50`)
	press(kb.Enter)
	p.Wait(`document.activeElement.id === "main"`)
	press("/")
	p.Wait(`document.activeElement.id === "q"`)
	// Whatever one comes to by Tab is seen to have the focus.
	for range 12 {
		press(kb.Tab)
		if !browser.Eval[bool](p, `document.activeElement === document.body || getComputedStyle(document.activeElement).outlineStyle !== "none"`) {
			t.Errorf("%s does not show that it has the focus", browser.Eval[string](p, `document.activeElement.outerHTML`))
		}
	}
}

func TestAxeFindsNothing(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join("testdata", "axe", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatalf("%v: make setup installs it", err)
	}
	c := busyCluster(60)
	c.write("01a2-000003", "stderr", []byte("a line"))
	base := serve(t, c)
	b := browser.Start(t)
	for scheme, width := range map[string]int{"light": 1200, "dark": 390} {
		p := b.Tab(width, 900)
		// axe is no part of the page, whose policy would not have it.
		p.Do(chromedp.Func(func(ctx context.Context, at *chromedp.Target) error {
			_, err := cdp.Call(ctx, at, cdpage.SetBypassCSP, cdpage.SetBypassCSPParams{Enabled: true})
			return err
		}))
		p.Prefer(scheme)
		for _, path := range eachView {
			p.Go(base + path)
			p.Shows("live")
			p.Do(chromedp.Evaluate[chromedp.Void](string(axe)))
			found := browser.Eval[[]string](p, `axe.run({resultTypes: ["violations"]}).then((r) => r.violations.map((v) => v.impact + " " + v.id + ": " + v.help + "\n" + v.nodes.map((n) => n.html + "\n" + n.failureSummary).join("\n")))`)
			for _, violation := range found {
				t.Errorf("%s, %s, %d wide: %s", path, scheme, width, violation)
			}
		}
	}
}

// runUntil runs a server until it is told to stop, or the test ends.
func runUntil(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}
