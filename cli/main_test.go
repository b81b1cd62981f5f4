package cli

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write the golden files and docs/cli.md anew")

func TestMain(m *testing.M) {
	// Golden files show times as people see them. Not by time.Local: libraries look at clocks in the background from their start.
	if err := os.Setenv("TZ", "UTC"); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"wasmatrix": func() {
			os.Exit(Main(os.Args, os.Stdout, os.Stderr, Build{Version: "v1.2.3", Commit: "abcdef123456"}))
		},
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
		},
	})
}

// exits CODE COMMAND...: runs a command that must exit with the code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = exitCode(err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}
