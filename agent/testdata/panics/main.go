// Command panics says its arguments and panics: a large guest for the tests of an agent.
package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	fmt.Println("panics", strings.Join(os.Args[1:], " "))
	panic("as asked")
}
