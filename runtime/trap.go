package runtime

import (
	"regexp"
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
func trapText(err error) string {
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
			return cause + " in func " + frameName(lines[n+1])
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
