package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
	"github.com/wasmatrix/wasmatrix/internal/guest"
)

// provider is the contract's provider.
type provider struct {
	ProviderID   string            `json:"provider_id"`
	ProviderType string            `json:"provider_type"`
	Backend      string            `json:"backend"`
	State        string            `json:"state"`
	Nodes        []string          `json:"nodes"`
	Failures     map[string]string `json:"failures"`
}

// caller returns the path of the guest that asks for what its arguments say.
func caller(t *testing.T) string {
	t.Helper()
	return guest.C(t, filepath.Join("testdata", "caller.c"))
}

// said returns what an instance has printed that begins with some words.
func said(t *testing.T, via *rig.Node, ref, words string) []string {
	t.Helper()
	var found []string
	for _, e := range via.Logs(ref) {
		if strings.HasPrefix(e.Line, words) {
			found = append(found, e.Line)
		}
	}
	return found
}

// waitSaid waits until an instance has printed something that begins with some words, after so many of them.
func waitSaid(t *testing.T, via *rig.Node, ref, words string, after int) string {
	t.Helper()
	var last string
	rig.Wait(t, fmt.Sprintf("%s to print %q", ref, words), 30*time.Second, func() error {
		found := said(t, via, ref, words)
		if len(found) <= after {
			all := via.Logs("--tail", "5", ref)
			return fmt.Errorf("it printed that %d times; last: %v", len(found), all)
		}
		last = found[after]
		return nil
	})
	return last
}

func waitProvider(t *testing.T, via *rig.Node, id, state string) {
	t.Helper()
	rig.Wait(t, fmt.Sprintf("provider %s to be %s", id, state), 20*time.Second, func() error {
		var p provider
		if err := via.TryJSON(&p, "provider", "inspect", id); err != nil {
			return err
		}
		if p.State != state {
			return fmt.Errorf("it is %s: %v", p.State, p.Failures)
		}
		return nil
	})
}

func TestFreshClusterHasThreeProviders(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	for _, id := range []string{"http", "kv", "messaging"} {
		waitProvider(t, c.Any(), id, "running")
	}
	var all []provider
	c.Any().JSON(&all, "provider", "ls")
	if len(all) != 3 {
		t.Fatalf("the providers are %+v", all)
	}
	for args, code := range map[string]string{
		"run --capability nosuch=kv:read":                           "CAPABILITY_NOT_FOUND",
		"run --capability kv=http:request":                          "INVALID_REQUEST",
		"provider inspect nosuch":                                   "CAPABILITY_NOT_FOUND",
		"provider start kv --id kv --backend raft: --on a=b":        "INVALID_REQUEST",
		"provider start http --id kv":                               "INVALID_REQUEST",
		"provider start kv --id x --backend ftp://h":                "INVALID_REQUEST",
		"provider start kv --id x --set speed=1":                    "INVALID_REQUEST",
		"provider start kv --id x --on nolabel=1 --backend memory:": "PROVIDER_UNAVAILABLE",
	} {
		words := strings.Fields(args)
		if words[0] == "run" {
			words = append(words, actor(t), "--", "forever")
		}
		if r := c.Any().CLI(words...); r.Code != 1 || r.Reported().Code != code {
			t.Errorf("%s: exit code %d, %v; want %s", args, r.Code, r.Reported(), code)
		}
	}
}

// A guest's grant is asked on each call; revoked, it acts on the next one, whoever leads by then.
func TestGrantsAreAskedOnEachCall(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	n := c.Any()
	n.Run("--name", "counter", "--restart", "always", "--capability", "kv=kv:read,kv:write", caller(t), "--", "count", "n")
	waitSaid(t, n, "counter", "increment n = ", 3)
	n.JSON(&[]any{}, "capability", "revoke", "counter", "kv=kv:write")
	denied := waitSaid(t, n, "counter", "increment n ! -3 ", 0)
	if !strings.Contains(denied, "kv:write") {
		t.Errorf("the guest is told %q, which does not say what it lacks", denied)
	}
	before := len(said(t, n, "counter", "increment n = "))
	if host := n.Inspect("counter").NodeName; c.Leader().Name == host { // whose end would take what it printed along
		n.CLI("operator", "raft", "transfer")
		rig.Wait(t, "another node to lead", 10*time.Second, func() error {
			status, err := n.TryStatus()
			if err == nil && status.Leader.Name == host {
				err = fmt.Errorf("%s leads", host)
			}
			return err
		})
	}
	c.Leader().Kill()
	n = c.Any()
	waitSaid(t, n, "counter", "increment n ! -3 ", 20)
	if now := len(said(t, n, "counter", "increment n = ")); now != before {
		t.Errorf("after the revoke it incremented %d times more", now-before)
	}
	var grants []struct {
		Permissions []string `json:"permissions"`
	}
	n.JSON(&grants, "capability", "grant", "counter", "kv=kv:write")
	if len(grants) != 1 || !slices.Equal(grants[0].Permissions, []string{"kv:read", "kv:write"}) {
		t.Errorf("granted again, it may %+v", grants)
	}
	waitSaid(t, n, "counter", "increment n = ", before+3)
	kinds := map[string]bool{}
	for _, e := range n.Events() {
		kinds[e.Type] = true
	}
	for _, kind := range []string{"capability.denied", "capability.granted"} {
		if !kinds[kind] {
			t.Errorf("there is no event %s", kind)
		}
	}
	if i := n.Inspect("counter"); i.Restarts > 0 {
		t.Errorf("denials have ended it %d times", i.Restarts)
	}
}

// A counter in the replicated store goes on where it was when its host is lost, and counts nothing twice that it was told of.
func TestCounterSurvivesTheLossOfItsHost(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 4)
	waitVoters(t, c, 3)
	id := c.Any().Run("--name", "counter", "--restart", "always", "--capability", "kv=kv:read,kv:write", caller(t), "--", "count", "n")[0].InstanceID
	waitSaid(t, c.Any(), id, "increment n = ", 20)
	host := c.Get(c.Any().Inspect(id).NodeName)
	last := lastCount(t, c.Any(), id)
	host.Kill()
	asked := c.Any()
	rig.Wait(t, "the counter to run elsewhere", 2*movedWithin, func() error {
		i := asked.Inspect(id)
		if i.Status != "running" || i.NodeName == host.Name {
			return fmt.Errorf("it is %s on %s", i.Status, i.NodeName)
		}
		return nil
	})
	// The lost host may have counted a little further than it was heard of.
	if first := countOf(t, waitSaid(t, asked, id, "increment n = ", 0)); first <= last || first > last+2000 {
		t.Errorf("it had counted to %d, and goes on with %d", last, first)
	}
	counts := said(t, asked, id, "increment n = ")
	for n := 1; n < len(counts); n++ {
		if countOf(t, counts[n]) != countOf(t, counts[n-1])+1 {
			t.Fatalf("%q comes after %q", counts[n], counts[n-1])
		}
	}
}

func countOf(t *testing.T, line string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimPrefix(line, "increment n = "))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func lastCount(t *testing.T, via *rig.Node, id string) int {
	t.Helper()
	counts := said(t, via, id, "increment n = ")
	return countOf(t, counts[len(counts)-1])
}

func TestReplicatedKeysSurviveAPowerCut(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	args := []string{"--name", "writer", "--restart", "never", "--capability", "kv=kv:read,kv:write", caller(t), "--"}
	for n := range 50 {
		args = append(args, "set", fmt.Sprintf("k%02d", n), strconv.Itoa(n*n))
	}
	id := c.Any().Run(args...)[0].InstanceID
	waitSaid(t, c.Any(), id, "set k49 = ", 0)
	for _, n := range c.Nodes() {
		n.Kill()
	}
	for _, n := range c.Nodes() {
		n.Restart()
	}
	c.WaitFormed(3)
	reader := c.Any().Run("--name", "reader", "--restart", "never", "--capability", "kv=kv:read,kv:bucket:writer", caller(t), "--",
		"get", "k07", "bucket", "writer", "list", "k", "get", "k07", "get", "k49", "set", "k07", "0")[0].InstanceID
	for _, want := range []string{"get k07 ! -6 ", "list k = 50", "get k07 = 49", "get k49 = 2401", "set k07 ! -3 "} {
		waitSaid(t, c.Any(), reader, want, 0)
	}
}

// Replicas share what is asked of a subject, wherever they run, and clients of NATS from outside can join in.
func TestReplicasShareMessagesAcrossNodes(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 3)
	waitVoters(t, c, 3)
	n := c.Any()
	workers := n.Run("--name", "worker", "--count", "3", "--restart", "always", "--capability", "messaging=msg:subscribe:jobs.*", caller(t), "--", "serve", "jobs.*")
	hosts := map[string]bool{}
	for _, w := range workers {
		waitSaid(t, n, w.InstanceID, "serve jobs.* = ", 0)
		hosts[w.NodeName] = true
	}
	if len(hosts) != 3 {
		t.Fatalf("the workers are on %v", hosts)
	}
	asker := n.Run("--name", "asker", "--restart", "never", "--capability", "messaging=msg:publish:jobs.sum", caller(t), "--", "ask", "jobs.sum", "60", "publish", "other", "x")[0].InstanceID
	waitSaid(t, n, asker, "publish other ! -3 ", 0)
	if answers := said(t, n, asker, "ask "); len(answers) < 60 {
		t.Fatalf("of 60 questions %d were answered", len(answers))
	}
	served := 0
	for _, w := range workers {
		some := len(said(t, n, w.InstanceID, "served "))
		if some == 0 {
			t.Errorf("the worker on %s has served nothing", w.NodeName)
		}
		served += some
	}
	if served < 60 || served > 66 { // a question whose answer was late is asked again
		t.Errorf("60 questions were served %d times", served)
	}

	outside, err := nats.Connect("nats://" + n.IP + ":7403")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	answer, err := outside.Request("jobs.hello", []byte("hello from outside"), 5*time.Second)
	if err != nil || string(answer.Data) != "hello from outside" {
		t.Fatalf("a client from outside is answered %v, %v", answer, err)
	}

	// A revoke acts on a guest that is waiting for a message.
	n.JSON(&[]any{}, "capability", "revoke", workers[0].InstanceID, "messaging")
	waitSaid(t, n, workers[0].InstanceID, "serve jobs.* ! ", 0)
}

// An http provider on some nodes serves guests on the others, within their grants; when its node is lost they are told soon.
func TestProviderServesGuestsOnOtherNodes(t *testing.T) {
	t.Parallel()
	c := product.New(t)
	c.Node("n1").Start()
	for _, name := range []string{"n2", "n3"} {
		c.Node(name).Start("--join", c.Get("n1").Gossip(), "--label", "zone="+name)
	}
	c.WaitFormed(3)
	var asked atomic.Int64
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
			return
		}
		fmt.Fprint(w, strings.Repeat("x", 200_000))
	}))
	defer site.Close()
	n := c.Get("n1")
	rig.Wait(t, "the nodes to register", 20*time.Second, func() error {
		return n.TryJSON(&provider{}, "provider", "start", "http", "--id", "dmz", "--on", "zone=n3", "--set", "timeout=2s")
	})
	waitProvider(t, n, "dmz", "running")
	id := n.Run("--name", "fetcher", "--restart", "never", "--constraint", "zone=n2", "--capability", "http=http:request,http:domain:127.0.0.1",
		"--capability", "dmz=http:request,http:domain:127.0.0.1", caller(t), "--", "fetch", site.URL, "fetch", site.URL+"/away", "fetch", "http://localhost:1",
		"via", "dmz", "fetch", site.URL, "fetch", site.URL+"/away", "fetch", "http://localhost:1")[0].InstanceID
	for nth := range 2 { // from its own node, and from another one
		waitSaid(t, n, id, fmt.Sprintf("fetch %s = 200, 200000 bytes", site.URL), nth)
		for _, want := range []string{"fetch " + site.URL + "/away ! -3 ", "fetch http://localhost:1 ! -3 "} {
			if denied := waitSaid(t, n, id, want, nth); !strings.Contains(denied, "http:domain") {
				t.Errorf("the guest is told %q", denied)
			}
		}
	}
	again := n.Run("--name", "again", "--restart", "never", "--constraint", "zone=n2", "--capability", "dmz=http:request,http:domain:127.0.0.1",
		caller(t), "--", "via", "dmz", "refetch", site.URL)[0].InstanceID
	fine := fmt.Sprintf("fetch %s = 200, 200000 bytes", site.URL)
	waitSaid(t, n, again, fine, 2)
	c.Get("n3").Kill()
	waitSaid(t, n, again, fmt.Sprintf("fetch %s ! ", site.URL), 0)
	waitProvider(t, n, "dmz", "failing")
	before := len(said(t, n, again, fine))
	c.Get("n3").Restart()
	waitSaid(t, n, again, fine, before)
	waitProvider(t, n, "dmz", "running")
	if i := n.Inspect(again); i.Restarts != 0 || i.Status != "running" {
		t.Errorf("meanwhile the guest was ended: %+v", i)
	}
}

// Stopping a provider, or losing its backend, is an error to guests and nothing else.
func TestStoppedProviderIsAnErrorUntilItIsBack(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 1)
	n := c.Any()
	rig.Wait(t, "the node to register", 20*time.Second, func() error {
		return n.TryJSON(&provider{}, "provider", "start", "kv", "--id", "cache", "--backend", "memory:")
	})
	id := n.Run("--name", "counter", "--restart", "never", "--capability", "cache=kv:read,kv:write", caller(t), "--", "use", "cache", "count", "n")[0].InstanceID
	waitSaid(t, n, id, "increment n = ", 3)
	n.JSON(&provider{}, "provider", "stop", "cache")
	waitSaid(t, n, id, "increment n ! -4 ", 3)
	if r := n.CLI("run", "--capability", "cache=kv:read", actor(t), "--", "forever"); r.Code != 1 || r.Reported().Code != "PROVIDER_UNAVAILABLE" {
		t.Errorf("a start that needs it: exit code %d, %v", r.Code, r.Reported())
	}
	before := len(said(t, n, id, "increment n = "))
	n.JSON(&provider{}, "provider", "start", "kv", "--id", "cache")
	waitSaid(t, n, id, "increment n = ", before+3)
	n.JSON(&provider{}, "provider", "update", "cache", "--backend", "raft:")
	waitSaid(t, n, id, "increment n = 1", 1) // there it counts from the beginning
	waitProvider(t, n, "cache", "running")
}
