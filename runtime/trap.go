package runtime

import (
	"regexp"
	"strconv"
	"strings"
)

// trapWords says what wazero's names of traps mean to the author of a guest.
var trapWords = map[string]string{
	"unreachable":                 "unreachable executed",
	"stack overflow":              "call stack exhausted",
	"indirect call type mismatch": "indirect call of a function of another type",
	"invalid table access":        "indirect call of no function",
}

// trapText puts a guest's failure into one line, such as "wasm trap: integer divide by zero in func
// main.run". wazero gives the cause in the first line and the innermost frame in the third.
func trapText(err error, metered bool) string {
	lines := strings.Split(err.Error(), "\n")
	cause, isTrap := strings.CutPrefix(lines[0], "wasm error: ")
	if words, ok := trapWords[cause]; ok {
		cause = words
	}
	if isTrap {
		cause = "wasm trap: " + cause
	}
	for n, line := range lines {
		if line == "wasm stack trace:" && n+1 < len(lines) {
			name := frameName(lines[n+1])
			if metered {
				name = originalName(name)
			}
			return cause + " in func " + name
		}
	}
	return cause
}

// frame is a stack frame as wazero prints it: "\tmodule.name(params) results". The module is empty
// for guests, and a name may itself hold dots and brackets, as Go's methods do.
var frame = regexp.MustCompile(`^\s*\.?(.*?)\([a-z0-9,]*\)(?: [a-z0-9]+| \([a-z0-9,]*\))?$`)

func frameName(line string) string {
	if m := frame.FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return strings.TrimSpace(line)
}

// originalName returns what a function is called that has no name but its index, which metering has moved: the host's function is before it.
func originalName(name string) string {
	index, nameless := strings.CutPrefix(name, "$")
	if n, err := strconv.Atoi(index); nameless && err == nil && n > 0 {
		return "$" + strconv.Itoa(n-1)
	}
	return name
}
