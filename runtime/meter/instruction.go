package meter

import (
	"bytes"
	"fmt"
)

// The instructions that metering looks at. All others are passed (WebAssembly 2.0, section 5.4).
const (
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opI64GeS       = 0x59
	opI64Add       = 0x7c
	opI64Sub       = 0x7d
	opI64ShrU      = 0x88
	opI32WrapI64   = 0xa7
	opRefNull      = 0xd0
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd

	// Behind opMisc.
	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17

	blockEmpty = 0x40
	typeI64    = 0x7e
	typeI32    = 0x7f
	typeFunc   = 0x60
)

// instruction is one of a body or of a constant expression, without what is of no interest.
type instruction struct {
	at, end int    // where it is in the bytes that are read
	op      byte   // the first byte
	sub     uint32 // behind opMisc and opVector
	second  uint32 // what follows index behind opMisc: a table, or the memory, which is 0
	index   uint32 // of a call, a global, a local, a function reference, the type of a call_indirect, or what comes first behind opMisc
	typed   bool   // a block whose type is index
}

// next reads one instruction.
func (r *reader) next() (i instruction, err error) {
	i.at = r.at
	i.op = r.byte()
	switch op := i.op; {
	case op == opBlock || op == opLoop || op == opIf:
		i.index, i.typed = r.blockType()
	case op == opBr || op == opBrIf, op == 0x25 || op == 0x26: // labels, tables
		r.u32()
	case op == opBrTable:
		for n := r.u32(); r.err == nil; n-- {
			r.u32()
			if n == 0 {
				break
			}
		}
	case op == opCall || op == opGlobalGet || op == opGlobalSet || op == opRefFunc || local(op):
		i.index = r.u32()
	case op == opCallIndirect:
		i.index = r.u32()
		r.u32()
	case op == 0x1c: // select with types
		r.types(r.u32())
	case op >= 0x28 && op <= 0x3e: // loads and stores
		r.memoryArgument()
	case op == opMemorySize || op == opMemoryGrow || op == opRefNull:
		r.byte()
	case op == opI32Const:
		r.skipLEB(5)
	case op == opI64Const:
		r.skipLEB(10)
	case op == 0x43:
		r.skip(4)
	case op == 0x44:
		r.skip(8)
	case op == opMisc:
		i.sub = r.u32()
		i.index, i.second = r.miscArguments(i.sub)
	case op == opVector:
		i.sub = r.vector()
		r.vectorArguments(i.sub)
	case plain(op):
	default:
		return i, fmt.Errorf("instruction %#x is not of WebAssembly 2.0", op)
	}
	i.end = r.at
	return i, r.err
}

// plain says whether an instruction is one byte.
func plain(op byte) bool {
	return op <= 0x01 || op == opElse || op == opEnd || op == opReturn || op == 0x1a || op == 0x1b || op >= 0x45 && op <= 0xc4 || op == 0xd1
}

func local(op byte) bool { return op >= opLocalGet && op <= opLocalTee }

func (r *reader) memoryArgument() {
	r.u32()
	r.skipLEB(5)
}

func (r *reader) miscArguments(sub uint32) (first, second uint32) {
	switch {
	case sub <= 7: // saturating conversions
	case sub == miscMemoryInit:
		return r.u32(), r.memory()
	case sub == miscMemoryCopy:
		return r.memory(), r.memory()
	case sub == miscMemoryFill:
		return r.memory(), 0
	case sub == miscTableInit, sub == miscTableCopy:
		return r.u32(), r.u32()
	case sub >= miscDataDrop && sub <= miscTableFill:
		return r.u32(), 0
	default:
		r.fail(fmt.Errorf("instruction 0xfc %d is not of WebAssembly 2.0", sub))
	}
	return 0, 0
}

// memory reads the memory that an instruction is for. There is but one.
func (r *reader) memory() uint32 {
	if b := r.byte(); b != 0 {
		r.fail(fmt.Errorf("memory %d is not of WebAssembly 2.0", b))
	}
	return 0
}

// blockType reads what a block takes and leaves: nothing, a value, or what a type says.
func (r *reader) blockType() (index uint32, typed bool) {
	at := r.at
	t := r.s33()
	switch {
	case t >= 0:
		return uint32(t), true
	case r.err == nil && (r.at > at+1 || r.bytes[at] != blockEmpty && !bytes.Contains(valueTypeBytes, r.bytes[at:at+1])):
		r.fail(fmt.Errorf("a block of the type %#x: %w", r.bytes[at], errSpelling))
	}
	return 0, false
}

// vector reads which instruction on vectors it is. wazero takes it for one byte: behind one of 0x80 or more it executes the second, which is
// nop where it is spelled as it should be. So no other spelling may be read here, or else other instructions would be seen than are executed.
func (r *reader) vector() uint32 {
	sub := r.byte()
	if sub >= 0x80 {
		if second := r.byte(); second != 1 {
			r.fail(fmt.Errorf("instruction 0xfd %#x %#x: %w", sub, second, errSpelling))
		}
	}
	return uint32(sub)
}

func (r *reader) vectorArguments(sub uint32) {
	switch {
	case sub <= 11, sub == 92, sub == 93: // loads and stores
		r.memoryArgument()
	case sub == 12, sub == 13: // a constant, a shuffle
		r.skip(16)
	case sub >= 21 && sub <= 34: // lanes
		r.byte()
	case sub >= 84 && sub <= 91: // loads and stores of lanes
		r.memoryArgument()
		r.byte()
	case sub <= 255:
	default:
		r.fail(fmt.Errorf("instruction 0xfd %d is not of WebAssembly 2.0", sub))
	}
}

// cost is what an instruction is charged, in units of about what a simple one takes.
func (i instruction) cost() int64 {
	switch op := i.op; {
	case op == 0x01 || op == opBlock || op == opLoop || op == opElse || op == opEnd || op == 0x1a,
		local(op), op == opI32Const, op == opI64Const, op == 0x43, op == 0x44:
		return 0 // they name values, and take none when compiled
	case op == opCall:
		return 4
	case op == opCallIndirect:
		return 8 + leafMost // for what is called without charging by itself
	case op >= 0x6d && op <= 0x70 || op >= 0x7f && op <= 0x82: // division of integers
		return 8
	case op == 0x91 || op == 0x9f || op == 0x95 || op == 0xa3: // roots and division of floats
		return 8
	case op == opMemoryGrow || op == opMisc && i.sub >= miscMemoryInit:
		return 64 // and what they move
	}
	return 1
}
