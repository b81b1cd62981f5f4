//go:build wasip1

// hello greets, shows what it was given, and ends.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("hello from WebAssembly")
	for _, arg := range os.Args[1:] {
		fmt.Println("argument:", arg)
	}
	if name := os.Getenv("GREET"); name != "" {
		fmt.Println("greetings,", name)
	}
}
