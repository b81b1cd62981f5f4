//go:build wasip1

// crashy works for a second and then panics, to show what a restart policy does.
package main

import (
	"fmt"
	"time"
)

func main() {
	fmt.Println("working")
	time.Sleep(time.Second)
	panic("out of luck")
}
