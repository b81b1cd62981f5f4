package cli

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Words that stand for what can be proposed, and for what nobody but the user knows.
var (
	proposed = strings.Fields("ADDRESS COMMAND [COMMAND] DIR FILE FORMAT HASH ID KEY ID=PERM[,PERM...] ID[=PERM,...] LEVEL [LEVEL] MODULE [MODULE] NAME NODE POLICY PROFILE REF SHELL STATUS TYPE WHAT [--")
	free     = strings.Fields("ADDRESSES FACTOR IP K=V N PORT SIZE TEXT TIME URL USER UUID ARG...]")
)

func TestTabKnowsWhatEachWordOfTheHelpStandsFor(t *testing.T) {
	for name, c := range commands() {
		words := strings.Fields(c.ArgsUsage)
		for _, f := range c.Flags {
			if takesValue(f) {
				words = append(words, placeholderOf(f))
			}
			fixed := values[f.Names()[0]]
			for _, value := range fixed {
				if usage := f.(cli.DocGenerationFlag).GetUsage(); !strings.Contains(usage, value) {
					t.Errorf("%s --%s: %s is proposed, and its help says %q", name, f.Names()[0], value, usage)
				}
			}
			if word := placeholderOf(f); fixed == nil && slices.Contains(strings.Fields("FORMAT KEY LEVEL POLICY PROFILE WHAT"), word) {
				t.Errorf("%s --%s takes one of a few values; say in complete.go which", name, f.Names()[0])
			}
		}
		for _, word := range words {
			word = strings.TrimSuffix(word, "...")
			if !slices.Contains(proposed, word) && !slices.Contains(free, word) && !slices.Contains(free, word+"...") {
				t.Errorf("%s: what does %s stand for? Propose it in complete.go, or say here that nobody can", name, word)
			}
		}
	}
}

func propose(words ...string) []string {
	app := tree()
	app.Setup() // adds help
	var found []string
	for _, w := range (&completer{app: app}).propose(append([]string{"wasmatrix"}, words...)).words {
		found = append(found, w.word)
	}
	return found
}

func TestTabReadsTheLineAsTheCommandWould(t *testing.T) {
	for line, want := range map[string]string{
		"node dr":                         "drain",
		"node drain --ti":                 "--timeout",
		"node frob ":                      "",
		"frob ":                           "",
		"ps -o ":                          "table json",
		"ps --output=":                    "--output=table --output=json",
		"ps --output json --outp":         "", // it is there
		"run --env A=B --en":              "--env",
		"run --restart never --restart":   "",
		"run --count 2 --on-partition st": "stop",
		"run x.wasm -- --res":             "", // the guest's
		"agent --log-level w":             "warn",
		"agent --join x ":                 "",
		"provider start k":                "kv",
		"provider start kv --backend re":  "redis://",
		"help operator sn":                "snapshot",
		"completion z":                    "zsh",
		"__comp":                          "", // for shells, and not for people
		"ps --he":                         "--help",
	} {
		words := strings.Split(line, " ")
		if got := strings.Join(propose(words...), " "); got != want {
			t.Errorf("%q is completed to %q, want %q", line, got, want)
		}
	}
}

// A prompt must not hang, nor show errors.
func TestTabGivesUpOnANodeThatDoesNotAnswer(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // it never accepted
	for _, addr := range []string{silent.Addr().String(), "127.0.0.1:1", "nowhere"} {
		var out, errs bytes.Buffer
		code := Main([]string{"wasmatrix", "__complete", "logs", "--addr", addr, "w"}, &out, &errs, Build{})
		if code != 0 || out.Len()+errs.Len() > 0 {
			t.Errorf("%s: exit code %d, %q, %q", addr, code, out.String(), errs.String())
		}
	}
}
