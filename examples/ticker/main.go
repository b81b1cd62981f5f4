//go:build wasip1

// ticker prints a line every second until it is stopped.
package main

import (
	"fmt"
	"time"
)

func main() {
	for n := 1; ; n++ {
		fmt.Println("tick", n)
		time.Sleep(time.Second)
	}
}
