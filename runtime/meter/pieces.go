package meter

// Functions that do in pieces what one instruction does, and charge for each piece. They are put behind the module's own. What is out of
// bounds is left to the instruction, which traps before it moves anything.

// hasPieces says whether the module moves memory at all.
func (m *module) hasPieces() bool {
	for n := range m.functions {
		for _, i := range m.functions[n].moves {
			if i.sub == miscMemoryFill || i.sub == miscMemoryCopy {
				return true
			}
		}
	}
	return false
}

// code writes instructions.
type code struct {
	bytes []byte
	m     *module
}

func (c *code) op(b ...byte)     { c.bytes = append(c.bytes, b...) }
func (c *code) get(local uint32) { c.bytes = appendU32(append(c.bytes, opLocalGet), local) }
func (c *code) set(local uint32) { c.bytes = appendU32(append(c.bytes, opLocalSet), local) }
func (c *code) i32(n int32)      { c.bytes = appendS64(append(c.bytes, opI32Const), int64(n)) }
func (c *code) i64(n int64)      { c.bytes = appendS64(append(c.bytes, opI64Const), n) }
func (c *code) add(a, b uint32)  { c.get(a); c.get(b); c.op(i32Add) }
func (c *code) misc(sub uint32, b ...byte) {
	c.bytes = append(appendU32(append(c.bytes, opMisc), sub), b...)
}

const (
	i32Add    = 0x6a
	i32Sub    = 0x6b
	i32LtU    = 0x49
	i32LeU    = 0x4d
	i64Add    = 0x7c
	i64Shl    = 0x86
	i64GtU    = 0x56
	i64Extend = 0xad // of an unsigned i32
	i32ShrU   = 0x76
	opSelect  = 0x1b
	opBrIf    = 0x0d
)

// The parameters of memory.fill and memory.copy, and the functions' own locals.
const (
	argTo, argWhat, argLength uint32 = 0, 1, 2
	ownPiece, ownLeft         uint32 = 3, 4
)

// fill is memory.fill in pieces.
func (m *module) fill() []byte {
	c := m.newPieces()
	c.outOfBounds(argTo)
	c.op(opIf, blockEmpty)
	c.get(argTo)
	c.get(argWhat)
	c.get(argLength)
	c.misc(miscMemoryFill, 0)
	c.op(opEnd)
	c.op(opLoop, blockEmpty)
	c.nextPiece()
	c.get(argTo)
	c.get(argWhat)
	c.get(ownPiece)
	c.misc(miscMemoryFill, 0)
	c.add(argTo, ownPiece)
	c.set(argTo)
	c.again()
	return c.end()
}

// copy is memory.copy in pieces: those that come first are not overwritten before they are read.
func (m *module) copy() []byte {
	c := m.newPieces()
	c.outOfBounds(argTo)
	c.outOfBounds(argWhat)
	c.op(0x72) // i32.or
	c.op(opIf, blockEmpty)
	c.get(argTo)
	c.get(argWhat)
	c.get(argLength)
	c.misc(miscMemoryCopy, 0, 0)
	c.op(opEnd)
	c.get(argTo)
	c.get(argWhat)
	c.op(i32LeU)
	c.op(opIf, blockEmpty)
	c.op(opLoop, blockEmpty) // forwards
	c.nextPiece()
	c.get(argTo)
	c.get(argWhat)
	c.get(ownPiece)
	c.misc(miscMemoryCopy, 0, 0)
	c.add(argTo, ownPiece)
	c.set(argTo)
	c.add(argWhat, ownPiece)
	c.set(argWhat)
	c.again()
	c.op(opElse)
	c.op(opLoop, blockEmpty) // backwards
	c.nextPiece()
	c.get(argLength)
	c.get(ownPiece)
	c.op(i32Sub)
	c.set(argLength)
	c.add(argTo, argLength)
	c.add(argWhat, argLength)
	c.get(ownPiece)
	c.misc(miscMemoryCopy, 0, 0)
	c.get(argLength)
	c.op(opBrIf, 0)
	c.op(opEnd)
	c.op(opEnd)
	return c.end()
}

// newPieces begins a function of three i32, with an i32 and an i64 of its own.
func (m *module) newPieces() *code {
	return &code{m: m, bytes: []byte{2, 1, typeI32, 1, typeI64}}
}

func (c *code) end() []byte {
	c.op(opEnd)
	return c.bytes
}

// outOfBounds leaves whether length bytes from there on are not all in the memory.
func (c *code) outOfBounds(from uint32) {
	c.get(from)
	c.op(i64Extend)
	c.get(argLength)
	c.op(i64Extend, i64Add, opMemorySize, 0, i64Extend)
	c.i64(16)
	c.op(i64Shl, i64GtU)
}

// nextPiece sets how long the next piece is, and charges for it.
func (c *code) nextPiece() {
	c.get(argLength)
	c.i32(pieceBytes)
	c.get(argLength)
	c.i32(pieceBytes)
	c.op(i32LtU, opSelect)
	c.set(ownPiece)
	c.bytes = appendU32(append(c.bytes, opGlobalGet), c.m.counter())
	c.get(ownPiece)
	c.i32(4) // bytesPerUnit is 16
	c.op(i32ShrU)
	c.i32(16) // what the piece costs by itself
	c.op(i32Add, i64Extend, opI64Sub)
	c.bytes = c.m.appendPay(c.bytes, ownLeft)
}

// again takes the piece off the length, and ends the loop when nothing is left.
func (c *code) again() {
	c.get(argLength)
	c.get(ownPiece)
	c.op(i32Sub)
	c.bytes = appendU32(append(c.bytes, opLocalTee), argLength)
	c.op(opBrIf, 0)
	c.op(opEnd)
}
