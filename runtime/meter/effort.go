package meter

import "fmt"

// What compiling a module may take. Browsers allow a function 7.6 MB and no more; wazero needs more than a module's size says. The figures are
// of wazero 1.12.
const (
	// maxBody is how many bytes a function may have. One of calls takes 500 times that of memory while it is compiled. The longest of CPython has 106,184.
	maxBody = 2 << 20
	// maxCrossings is how many locals a function reads elsewhere than where it wrote them, times how many branches it has: for each
	// local at each block some 100 bytes are needed. 20 KB of loops and a thousand locals took 1.6 GB. The most in QuickJS is 126,825.
	maxCrossings = 4_000_000
	// maxBranching is the sum of the squares of the branches of all functions, to which the time may be in proportion: some minutes then.
	// 50 KB of empty loops took longer. A Go module of 10 MB has 140 million.
	maxBranching = 4_000_000_000
)

// TooLargeError is a function that would take far too much to compile.
type TooLargeError struct {
	Function int // of those that the module defines, from 0
	What     string
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("function %d of those that it defines has %s", e.Function, e.What)
}

// effort is what compiling the functions of a module takes.
type effort struct {
	functions int
	squares   uint64 // of the branches of each
	block     uint32 // the number of the straight code that is looked at
	began     uint32 // the number of the first in this function
	written   []uint32
	crosses   []uint32
}

// branching returns in how many ways an instruction goes on, roughly: a loop, to which metering adds, for three.
func (i instruction) branching() int {
	switch i.op {
	case opLoop:
		return 3
	case opBlock, opIf, opBr, opBrIf:
		return 1
	case opBrTable:
		return i.end - i.at // a label takes a byte at least
	}
	return 0
}

// add counts a function in, whose locals were read.
func (e *effort) add(body *reader) error {
	e.functions++
	if len(body.bytes) > maxBody {
		return e.tooLarge("%d bytes, and %d are allowed", len(body.bytes), maxBody)
	}
	e.block++
	e.began = e.block
	branches, crossing := 0, 0
	for body.more() {
		at := body.at
		i, err := body.next()
		if err != nil { // whoever reads it next says so; it may be worth as much as it has bytes
			branches += len(body.bytes) - at
			break
		}
		branches += i.branching()
		switch i.op {
		case opBlock, opLoop, opIf, opElse, opEnd, opBr, opBrIf, opBrTable:
			e.block++
		case opLocalGet:
			if e.crossed(i.index) {
				crossing++
			}
		case opLocalSet, opLocalTee:
			if e.written = upTo(e.written, i.index); int(i.index) < len(e.written) {
				e.written[i.index] = e.block
			}
		}
	}
	if branches*crossing > maxCrossings {
		return e.tooLarge("%d branches, and reads %d locals elsewhere than where it wrote them: together more than can be compiled", branches, crossing)
	}
	if e.squares += uint64(branches) * uint64(branches); e.squares > maxBranching {
		return e.tooLarge("%d branches, with those of the others more than can be compiled in some minutes", branches)
	}
	return nil
}

func (e *effort) tooLarge(what string, args ...any) error {
	return &TooLargeError{Function: e.functions - 1, What: fmt.Sprintf(what, args...)}
}

// crossed says whether a local, which is read, has its value from elsewhere, for the first time in this function.
func (e *effort) crossed(local uint32) bool {
	e.written, e.crosses = upTo(e.written, local), upTo(e.crosses, local)
	if int(local) >= len(e.crosses) || e.written[local] == e.block || e.crosses[local] >= e.began {
		return false
	}
	e.crosses[local] = e.block
	return true
}

// upTo makes room for a local, if there may be such a one.
func upTo(all []uint32, local uint32) []uint32 {
	if int(local) < len(all) || local >= 2*maxLocals { // parameters come beside
		return all
	}
	return append(all, make([]uint32, int(local)+1-len(all))...)
}
