package meter

import (
	"fmt"
	"slices"
)

// piece is an instruction that moves as much as its operands say, and with what it does so. A function behind the module's own does it in
// pieces, and charges for each of them. What is out of bounds is left to the instruction, which traps before it moves anything.
type piece struct {
	sub           uint32
	first, second uint32 // a memory, tables, or a segment and where it goes
	what          byte   // the type of the second operand
}

const typeFuncref, typeExternref = 0x70, 0x6f

// pieceTypes are the types that the second operand can have. The first and the third are numbers.
var pieceTypes = []byte{typeI32, typeFuncref, typeExternref}

// needPiece sees to it that there is a function for what an instruction does. table.grow can't be done in pieces: it does all, or nothing.
func (m *module) needPiece(i instruction) error {
	if i.sub == miscTableGrow {
		return nil
	}
	p := m.piece(i)
	if !slices.Contains(pieceTypes, p.what) {
		return fmt.Errorf("there is no table %d for references", i.index)
	}
	if _, known := m.pieceAt[p]; !known {
		m.pieceAt[p] = uint32(len(m.pieces))
		m.pieces = append(m.pieces, p)
	}
	return nil
}

func (m *module) piece(i instruction) piece {
	p := piece{i.sub, i.index, i.second, typeI32}
	if i.sub == miscTableFill {
		p.what = 0
		if uint64(i.index) < uint64(len(m.tables)) {
			p.what = m.tables[i.index]
		}
	}
	return p
}

// inPieces is the function that does in pieces what an instruction does.
func (m *module) inPieces(i instruction) uint32 {
	return uint32(len(m.types)) + 1 + m.pieceAt[m.piece(i)]
}

// The parameters of such a function, and its own locals.
const (
	argTo, argWhat, argLength uint32 = 0, 1, 2
	ownPiece, ownLeft         uint32 = 3, 4
)

// function returns the code.
func (p piece) function(m *module) []byte {
	c := &code{m: m, piece: p, bytes: []byte{2, 1, typeI32, 1, typeI64}}
	c.checkBounds()
	switch p.sub {
	case miscMemoryCopy, miscTableCopy: // what comes first is not overwritten before it is read
		c.get(argTo)
		c.get(argWhat)
		c.op(i32LeU)
		c.op(opIf, blockEmpty)
		c.forwards(true)
		c.op(opElse)
		c.backwards()
		c.op(opEnd)
	case miscMemoryInit, miscTableInit:
		c.forwards(true)
	default:
		c.forwards(false)
	}
	c.op(opEnd)
	return c.bytes
}

// code writes the instructions of such a function.
type code struct {
	m     *module
	piece piece
	bytes []byte
}

const (
	i32Add    = 0x6a
	i32Sub    = 0x6b
	i32Or     = 0x72
	i32LtU    = 0x49
	i32LeU    = 0x4d
	i32ShrU   = 0x76
	i64Add    = 0x7c
	i64Shl    = 0x86
	i64GtU    = 0x56
	i64Extend = 0xad // of an unsigned i32
	opSelect  = 0x1b
)

func (c *code) op(b ...byte)     { c.bytes = append(c.bytes, b...) }
func (c *code) get(local uint32) { c.bytes = appendU32(append(c.bytes, opLocalGet), local) }
func (c *code) set(local uint32) { c.bytes = appendU32(append(c.bytes, opLocalSet), local) }
func (c *code) i32(n int32)      { c.bytes = appendS64(append(c.bytes, opI32Const), int64(n)) }
func (c *code) i64(n int64)      { c.bytes = appendS64(append(c.bytes, opI64Const), n) }
func (c *code) add(a, b uint32)  { c.get(a); c.get(b); c.op(i32Add) }

// misc appends an instruction behind opMisc.
func (c *code) misc(sub uint32, arguments ...uint32) {
	c.bytes = appendU32(append(c.bytes, opMisc), sub)
	for _, a := range arguments {
		c.bytes = appendU32(c.bytes, a)
	}
}

// instruction appends that which is done in pieces.
func (c *code) instruction() {
	switch c.piece.sub {
	case miscMemoryFill, miscTableFill:
		c.misc(c.piece.sub, c.piece.first)
	case miscMemoryInit:
		c.misc(c.piece.sub, c.m.data.moved(c.piece.first), c.piece.second)
	default:
		c.misc(c.piece.sub, c.piece.first, c.piece.second)
	}
}

func (c *code) tables() bool { return c.piece.sub >= miscTableInit }

// checkBounds has the instruction trap where it would.
func (c *code) checkBounds() {
	to := c.piece.first
	if c.piece.sub == miscTableInit {
		to = c.piece.second
	}
	c.outOfBounds(argTo, func() { c.sizeOf(to) })
	switch c.piece.sub {
	case miscMemoryCopy:
		c.outOfBounds(argWhat, func() { c.sizeOf(0) })
		c.op(i32Or)
	case miscTableCopy:
		c.outOfBounds(argWhat, func() { c.sizeOf(c.piece.second) })
		c.op(i32Or)
	case miscMemoryInit, miscTableInit: // no segment is as long
		c.outOfBounds(argWhat, func() { c.i64(1<<32 - 1) })
		c.op(i32Or)
	}
	c.op(opIf, blockEmpty)
	c.get(argTo)
	c.get(argWhat)
	c.get(argLength)
	c.instruction()
	c.op(opEnd)
	if c.piece.sub == miscMemoryInit || c.piece.sub == miscTableInit {
		// Nothing says how long a segment is, but to take nothing from behind its end traps.
		c.i32(0)
		c.add(argWhat, argLength)
		c.i32(0)
		c.instruction()
	}
}

// outOfBounds leaves whether length bytes or elements from there on are not all there.
func (c *code) outOfBounds(from uint32, size func()) {
	c.get(from)
	c.op(i64Extend)
	c.get(argLength)
	c.op(i64Extend, i64Add)
	size()
	c.op(i64GtU)
}

// sizeOf leaves the size of a table, or of the memory.
func (c *code) sizeOf(table uint32) {
	if c.tables() {
		c.misc(miscTableSize, table)
		c.op(i64Extend)
		return
	}
	c.op(opMemorySize, 0, i64Extend)
	c.i64(16)
	c.op(i64Shl)
}

// forwards does it from the beginning. What is moved comes from further on each time, and what is filled in stays the same.
func (c *code) forwards(moved bool) {
	c.op(opLoop, blockEmpty)
	c.nextPiece()
	c.get(argTo)
	c.get(argWhat)
	c.get(ownPiece)
	c.instruction()
	c.add(argTo, ownPiece)
	c.set(argTo)
	if moved {
		c.add(argWhat, ownPiece)
		c.set(argWhat)
	}
	c.get(argLength)
	c.get(ownPiece)
	c.op(i32Sub)
	c.bytes = appendU32(append(c.bytes, opLocalTee), argLength)
	c.op(opBrIf, 0, opEnd)
}

// backwards does it from the end.
func (c *code) backwards() {
	c.op(opLoop, blockEmpty)
	c.nextPiece()
	c.get(argLength)
	c.get(ownPiece)
	c.op(i32Sub)
	c.set(argLength)
	c.add(argTo, argLength)
	c.add(argWhat, argLength)
	c.get(ownPiece)
	c.instruction()
	c.get(argLength)
	c.op(opBrIf, 0, opEnd)
}

// nextPiece sets how long the next piece is, and charges for it.
func (c *code) nextPiece() {
	most, shift := int32(pieceBytes), int32(bytesShift)
	if c.tables() {
		most, shift = pieceElements, elementsShift
	}
	c.get(argLength)
	c.i32(most)
	c.get(argLength)
	c.i32(most)
	c.op(i32LtU, opSelect)
	c.set(ownPiece)
	c.bytes = appendU32(append(c.bytes, opGlobalGet), c.m.counter())
	c.get(ownPiece)
	c.i32(shift)
	c.op(i32ShrU)
	c.i32(pieceCost)
	c.op(i32Add, i64Extend, opI64Sub)
	c.bytes = c.m.appendPay(c.bytes, ownLeft)
}
