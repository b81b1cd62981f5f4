package wasmatrix_test

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	wasmatrix "github.com/wasmatrix/wasmatrix/sdk/go"
	"github.com/wasmatrix/wasmatrix/sdk/go/wasmhttp"
)

// Off wasip1 there is nobody to answer, and each call says so. What guests do is tested in package runtime.
func TestElsewhereEveryCallIsUnavailable(t *testing.T) {
	kv, bus := wasmatrix.KV("kv").Bucket("b"), wasmatrix.Messaging("messaging")
	for name, call := range map[string]func() error{
		"get":       func() error { _, err := kv.Get("k"); return err },
		"exists":    func() error { _, err := kv.Exists("k"); return err },
		"set":       func() error { _, err := kv.Set("k", nil, wasmatrix.TTL(time.Second), wasmatrix.IfAbsent()); return err },
		"delete":    func() error { _, err := kv.Delete("k", wasmatrix.IfRevision(1)); return err },
		"increment": func() error { _, err := kv.Increment("k", 1); return err },
		"keys": func() error {
			for _, err := range kv.Keys("") {
				return err
			}
			return nil
		},
		"http":      func() error { return get("http://example.com/") },
		"publish":   func() error { return bus.Publish("s", nil) },
		"request":   func() error { _, err := bus.Request("s", nil, time.Second); return err },
		"subscribe": func() error { _, err := bus.Subscribe("s"); return err },
		"receive":   func() error { _, err := wasmatrix.Receive(time.Second); return err },
		"messages": func() error {
			for _, err := range (wasmatrix.Subscription{}).Messages() {
				return err
			}
			return nil
		},
		"dropped": func() error { _, err := wasmatrix.Dropped(); return err },
	} {
		err := call()
		if !errors.Is(err, wasmatrix.ErrUnavailable) || errors.Is(err, wasmatrix.ErrNotFound) || !strings.Contains(err.Error(), "GOOS=wasip1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func get(url string) error {
	resp, err := wasmhttp.Client("http").Get(url)
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}

// A guest takes along what its SDK imports.
func TestGuestsTakeNothingButTheStandardLibraryAlong(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if !strings.HasPrefix(path, "github.com/wasmatrix/wasmatrix/sdk/go") {
			t.Errorf("the SDK imports %s", path)
		}
	}
}
