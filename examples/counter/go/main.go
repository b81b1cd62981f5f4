//go:build wasip1

// counter counts seconds for ever: what it has counted is in a store, so that it goes on after a restart, also on
// another host.
package main

import (
	"fmt"
	"os"
	"time"

	wasmatrix "github.com/wasmatrix/wasmatrix/sdk/go"
)

func main() {
	kv := wasmatrix.KV("kv")
	for {
		n, err := kv.Increment("count", 1)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) // and the restart policy tries again
		}
		fmt.Println("count", n)
		time.Sleep(time.Second)
	}
}
