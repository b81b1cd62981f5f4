package capability

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestBackendsAreShownWithoutSecrets(t *testing.T) {
	for backend, want := range map[string]string{
		"raft:":                                       "raft:",
		"redis://10.0.0.9:6379/2":                     "redis://10.0.0.9:6379/2",
		"redis://user:SECRET@10.0.0.9:6379":           "redis://user:xxxxx@10.0.0.9:6379",
		"redis://:SECRET@10.0.0.9:6379":               "redis://:xxxxx@10.0.0.9:6379",
		"nats://SECRET@a:4222":                        "nats://xxxxx@a:4222",
		"nats://user:SECRET@a:4222,b:4222":            "nats://user:xxxxx@a:4222,b:4222",
		"nats://u:SECRET@a:4222,nats://v:SECRET@b":    "nats://xxxxx@b",
		"nats://a:4222?token=SECRET":                  "nats://a:4222?xxxxx",
		"redis://user:12,SECRET@h:1":                  "redis://user:xxxxx@h:1",
		"redis://user:SECRET,12@h:1":                  "redis://user:xxxxx@h:1",
		"etcd://u:1,SECRET@h:1,i:2/0?password=SECRET": "etcd://u:xxxxx@h:1,i:2/0?xxxxx",
		"redis://user:SE%CRET@h":                      "redis://user:xxxxx@h",
		"redis://user:SECRET@h:1,x:SECRET@other:2":    "redis://xxxxx@other:2",
	} {
		got := Redact(backend)
		if got != want {
			t.Errorf("%s is shown as %s, want %s", backend, got, want)
		}
		if strings.Contains(got, "SECRET") {
			t.Errorf("%s is shown as %s", backend, got)
		}
	}
}

func TestSettingsAreReadAndRefused(t *testing.T) {
	s, err := ReadSettings(TypeHTTP, map[string]string{ConfigTimeout: "20s", ConfigMaxBody: "1MiB"})
	if err != nil || s.Backend != BackendDirect || s.Timeout.Seconds() != 20 || s.MaxBody != 1<<20 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, kind := range Types() {
		if s, err := ReadSettings(kind, nil); err != nil || s.Backend != DefaultBackend(kind) || s.Timeout != DefaultTimeout {
			t.Errorf("%s: %+v, %v", kind, s, err)
		}
	}
	for what, config := range map[string]map[string]string{
		"an unknown key":        {"speed": "1"},
		"another type's key":    {ConfigMaxBody: "1MiB"},
		"no duration":           {ConfigTimeout: "soon"},
		"too long":              {ConfigTimeout: "1h"},
		"another type's engine": {ConfigBackend: BackendEmbedded},
		"no host":               {ConfigBackend: "redis://"},
		"no URL":                {ConfigBackend: "redis:// user:SECRET@h"},
		"an unknown scheme":     {ConfigBackend: "ftp://user:SECRET@h"},
	} {
		if _, err := ReadSettings(TypeKV, config); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := ReadSettings("disk", nil); err == nil {
		t.Error("an unknown type is taken")
	}
}

// TestNoSecretIsEverShown puts a secret wherever one may stand, among whatever else.
func TestNoSecretIsEverShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const secret = "hunter2secret"
		around := rapid.StringMatching(`[a-z0-9%,@/?#.]{0,6}`)
		user := around.Draw(t, "before") + secret + around.Draw(t, "after")
		backend := rapid.SampledFrom([]string{"redis", "nats", "etcd"}).Draw(t, "scheme") + "://"
		if rapid.Bool().Draw(t, "with a name") {
			backend += "name:"
		}
		backend += user + "@" + rapid.SampledFrom([]string{"h:1", "h:1,i:2", "h:1,j:x@i:2", "[::1]:1"}).Draw(t, "hosts")
		if rapid.Bool().Draw(t, "with a query") {
			backend += "/0?password=" + secret
		}
		if shown := Redact(backend); strings.Contains(shown, secret) {
			t.Fatalf("%s is shown as %s", backend, shown)
		}
	})
}
