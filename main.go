// Command wasmatrix runs WebAssembly across hosts: one binary for the node and for its users.
package main

import (
	"os"

	"github.com/wasmatrix/wasmatrix/cli"
)

// Set by the build.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	os.Exit(cli.Main(os.Args, os.Stdout, os.Stderr, cli.Build{Version: version, Commit: commit}))
}
