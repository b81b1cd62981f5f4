package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wasmatrix/wasmatrix/e2e/rig"
)

func TestEveryNodeServesHTTP(t *testing.T) {
	t.Parallel()
	c := product.Form(t, 2)
	one := c.Any().Run("--name", "seen", actor(t), "--", "forever")[0]
	for _, n := range c.Nodes() {
		rig.Wait(t, n.Name+" to be ready", 20*time.Second, func() error {
			code, _, err := get(n.HTTP() + "/readyz")
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("status %d", code)
			}
			return err
		})
		for path, want := range map[string][]string{
			"/":        {"seen", c.Leader().Name},
			"/healthz": nil,
			"/metrics": {
				"wasmatrix_instances{", "wasmatrix_instance_crash_total", "wasmatrix_api_request_total",
				"wasmatrix_api_request_latency_seconds", "wasmatrix_node_agent_health", "wasmatrix_raft_is_leader",
			},
		} {
			code, body, err := get(n.HTTP() + path)
			if err != nil || code != http.StatusOK {
				t.Errorf("%s of %s: %d, %v", path, n.Name, code, err)
			}
			for _, w := range want {
				if !strings.Contains(body, w) {
					t.Errorf("%s of %s has no %s", path, n.Name, w)
				}
			}
		}
		var status rig.Status
		getJSON(t, n.HTTP()+"/v1/status", &status)
		if status.Members.Alive != 2 || status.Leader.Name == "" {
			t.Errorf("/v1/status of %s: %+v", n.Name, status)
		}
		var members []rig.Member
		getJSON(t, n.HTTP()+"/v1/members", &members)
		if len(members) != 2 {
			t.Errorf("/v1/members of %s: %+v", n.Name, members)
		}
		var instances []rig.Instance
		getJSON(t, n.HTTP()+"/v1/instances", &instances)
		if len(instances) != 1 || instances[0].InstanceID != one.InstanceID {
			t.Errorf("/v1/instances of %s: %+v", n.Name, instances)
		}
		var instance rig.Instance
		getJSON(t, n.HTTP()+"/v1/instances/"+one.InstanceID, &instance)
		if instance.Status != "running" || instance.Name != "seen" {
			t.Errorf("/v1/instances/{id} of %s: %+v", n.Name, instance)
		}
	}

	code, body, err := get(c.Any().HTTP() + "/v1/instances/nobody")
	var refusal rig.Error
	if err != nil || code != http.StatusNotFound || json.Unmarshal([]byte(body), &refusal) != nil || refusal.Code != "INSTANCE_NOT_FOUND" {
		t.Errorf("an unknown instance: %d, %v, %s", code, err, body)
	}
}

func TestNodeWithoutALeaderIsHealthyAndNotReady(t *testing.T) {
	t.Parallel()
	c := product.New(t)
	n := c.Node("alone")
	n.Start("--join", c.Address(250))
	rig.Wait(t, "the node to serve", 20*time.Second, func() error {
		code, _, err := get(n.HTTP() + "/healthz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("status %d", code)
		}
		return err
	})
	if code, _, err := get(n.HTTP() + "/readyz"); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("/readyz without a leader: %d, %v", code, err)
	}
}

func get(url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func getJSON(t *testing.T, url string, into any) {
	t.Helper()
	code, body, err := get(url)
	if err != nil || code != http.StatusOK {
		t.Fatalf("%s: %d, %v", url, code, err)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		t.Fatalf("%s is no JSON of its shape: %v\n%s", url, err, body)
	}
}
