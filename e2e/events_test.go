package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

// Whoever listens, as webhook or on messaging, hears of each start at least once though the leader dies, and of one event by one id.
func TestEventsReachTheirReceiversOverTheDeathOfALeader(t *testing.T) {
	t.Parallel()
	const key = "It's a secret"
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hooked, heard := newHeard(t), newHeard(t)
	trouble := 0 // one answer in five is bad
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(body)
		if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); r.Header.Get("X-Hub-Signature-256") != want {
			t.Errorf("signed %q, want %s", r.Header.Get("X-Hub-Signature-256"), want)
		}
		hooked.mu.Lock()
		trouble++
		bad := trouble%5 == 0
		hooked.mu.Unlock()
		if bad {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		hooked.add(body)
	}))
	t.Cleanup(hook.Close)

	c := product.Form(t, 3, "--event-webhook", hook.URL, "--event-webhook-secret-file", keyFile)
	waitVoters(t, c, 3)
	leader, survivor := c.Leader(), c.Followers()[0]
	nc, err := nats.Connect("nats://" + survivor.IP + ":7403")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if _, err := nc.Subscribe("wasmatrix.events.instance.started", func(m *nats.Msg) { heard.add(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	// Interest travels to the leader in a moment; what is sent before that is not for us.
	rig.Wait(t, "messages come", 10*time.Second, func() error {
		survivor.Run("--name", "probe", "--restart", "never", actor(t), "--", "say", "x")
		if len(heard.starts()) == 0 {
			return fmt.Errorf("no start was heard of")
		}
		return nil
	})

	started := survivor.Run("--name", "before", "--count", "40", actor(t), "--", "forever")
	leader.Kill()
	started = append(started, survivor.Run("--name", "after", "--count", "20", "--timeout", "30s", actor(t), "--", "forever")...)
	for name, all := range map[string]*heardEvents{"the webhook": hooked, "messaging": heard} {
		rig.Wait(t, name+" hears of all starts", 30*time.Second, func() error {
			starts := all.starts()
			missing := 0
			for _, i := range started {
				if !starts[i.InstanceID] {
					missing++
				}
			}
			return rig.Want("starts that nobody told of", missing, 0)
		})
		all.mu.Lock()
		t.Logf("%s: %d events, %d doubles", name, len(all.byID), all.doubles)
		all.mu.Unlock()
	}
	if nc.LastError() != nil {
		t.Error(nc.LastError())
	}
}

// heardEvents is what one receiver was told.
type heardEvents struct {
	t *testing.T

	mu      sync.Mutex        // guards all below
	byID    map[string]string // whole events
	doubles int
}

func newHeard(t *testing.T) *heardEvents {
	t.Helper()
	return &heardEvents{t: t, byID: map[string]string{}}
}

func (h *heardEvents) add(body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var e struct{ ID string }
	if err := json.Unmarshal(body, &e); err != nil || e.ID == "" {
		h.t.Errorf("this is no event: %s", body)
		return
	}
	before, twice := h.byID[e.ID]
	if twice {
		h.doubles++
		if before != string(body) {
			h.t.Errorf("two events of one id:\n%s\n%s", before, body)
		}
	}
	h.byID[e.ID] = string(body)
}

// starts returns the instances whose start was told.
func (h *heardEvents) starts() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]bool{}
	for _, body := range h.byID {
		var e struct{ Type, Subject string }
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			h.t.Error(err)
		}
		if e.Type == "io.wasmatrix.instance.started" {
			all[e.Subject] = true
		}
	}
	return all
}
