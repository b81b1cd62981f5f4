package meter

import (
	"fmt"
)

// function is the code of one, and what it is to be charged.
type function struct {
	raw     []byte // locals and body
	code    int    // where its body begins
	params  int
	locals  uint32 // declared ones
	charges []charge
	edits   []edit   // in the order of the code
	others  [][]byte // branches as they are after the rewriting, where they differ
	pieces  bool     // it moves what may be much
	cost    int64    // of a leaf; what its caller is charged
	leaf    bool
}

// charge is what is charged at one point: for all the code of a function, or of a loop, that belongs to no loop in it.
type charge struct {
	cost  int64
	leafs []uint32 // what is called from there, and may be a leaf
}

// edit is a change of the code: what takes the place of an instruction. A module may have millions.
type edit struct {
	instruction
	kind kind
	n    uint32 // of the charge, or of others, by the kind
}

type kind byte

const (
	atEntry  kind = iota // a function begins, and is charged
	atLoop               // a loop begins, and is charged
	endsLoop             // and the loop around it
	branches             // it leaves loops, so it goes further
	moved                // the index moves
	inPieces             // it is done in pieces
)

// label is what a branch can go to: an open block, or the function itself.
type label struct {
	charge int  // to which its code belongs
	loop   bool // which is two blocks after the rewriting
	loops  int  // how many loops there are from the function to this
}

func (m *module) readCode(r *reader) error {
	for n := range r.count() {
		at := int(m.importedFuncs + n)
		if at >= len(m.types) {
			return fmt.Errorf("there is code for more functions than are declared")
		}
		body := r.sized()
		if r.err != nil {
			return r.err
		}
		f, err := m.readFunction(body, m.params[m.types[at]])
		if err != nil {
			return fmt.Errorf("function %d: %w", at, err)
		}
		m.functions = append(m.functions, f)
	}
	return r.whole()
}

// readFunction finds out where a function is to be charged how much.
func (m *module) readFunction(r *reader, params int) (function, error) {
	f := function{raw: r.bytes, params: params, leaf: true}
	var locals uint64
	for range r.count() {
		locals += uint64(r.u32())
		r.types(1)
	}
	if locals > maxLocals && r.err == nil {
		return f, fmt.Errorf("it has %d locals", locals)
	}
	f.locals, f.code = uint32(locals), r.at
	f.charges = []charge{{cost: 1}}
	f.edits = []edit{{instruction: instruction{at: r.at, end: r.at}, kind: atEntry}}
	open := []label{{}}
	for len(open) > 0 {
		i, err := r.next()
		if err != nil {
			return f, err
		}
		if err := m.check(i); err != nil {
			return f, err
		}
		if local(i.op) && uint64(i.index) >= uint64(params)+locals { // after the rewriting it has more
			return f, fmt.Errorf("it has no local %d", i.index)
		}
		in := open[len(open)-1]
		f.charges[in.charge].cost += i.cost()
		switch i.op {
		case opBlock, opIf:
			open = append(open, label{charge: in.charge, loops: in.loops})
		case opLoop:
			f.leaf = false
			f.charges = append(f.charges, charge{cost: 1})
			last := len(f.charges) - 1
			f.edits = append(f.edits, edit{instruction: i, kind: atLoop, n: uint32(last)})
			open = append(open, label{charge: last, loop: true, loops: in.loops + 1})
		case opEnd:
			if in.loop {
				f.edits = append(f.edits, edit{instruction: i, kind: endsLoop})
			}
			open = open[:len(open)-1]
		case opBr, opBrIf, opBrTable:
			there, err := branch(f.raw[i.at:i.end], open)
			if err != nil {
				return f, err
			}
			if there != nil {
				f.edits = append(f.edits, edit{instruction: i, kind: branches, n: uint32(len(f.others))})
				f.others = append(f.others, there)
			}
		case opCall:
			f.leaf = false
			f.charges[in.charge].leafs = append(f.charges[in.charge].leafs, i.index)
			f.edits = append(f.edits, edit{instruction: i, kind: moved})
		case opRefFunc:
			f.edits = append(f.edits, edit{instruction: i, kind: moved})
		case opCallIndirect, opMemoryGrow:
			f.leaf = false
		case opMisc:
			if moves(i) {
				f.leaf, f.pieces = false, true
				f.edits = append(f.edits, edit{instruction: i, kind: inPieces})
				if err := m.needPiece(i); err != nil {
					return f, err
				}
			}
			if i.sub == miscDataDrop {
				f.edits = append(f.edits, edit{instruction: i, kind: moved})
			}
		}
	}
	f.cost = f.charges[0].cost
	f.leaf = f.leaf && f.cost <= leafMost
	return f, r.whole()
}

// branch returns a branch as it is after the rewriting, which makes two blocks of each loop that it leaves; nil where it leaves none.
func branch(raw []byte, open []label) ([]byte, error) {
	r := &reader{bytes: raw[1:]}
	to := []byte{raw[0]}
	targets := uint32(1)
	if raw[0] == opBrTable {
		n := r.u32()
		to = appendU32(to, n)
		targets += n
	}
	leaves := false
	for range targets {
		depth := r.u32()
		if uint64(depth) >= uint64(len(open)) { // after the rewriting there are more
			return nil, fmt.Errorf("there is no label %d", depth)
		}
		crossed := open[len(open)-1].loops - open[len(open)-1-int(depth)].loops
		leaves = leaves || crossed > 0
		to = appendU32(to, depth+uint32(crossed))
	}
	if !leaves {
		return nil, nil
	}
	return to, nil
}

// check refuses what the module does not have. What it has after the rewriting would do.
func (m *module) check(i instruction) error {
	switch {
	case i.op == opCall || i.op == opRefFunc:
		return m.checkFunction(i.index)
	case i.op == opGlobalGet || i.op == opGlobalSet:
		return m.checkGlobal(i.index)
	case (i.op == opCallIndirect || i.typed) && uint64(i.index) >= uint64(len(m.params)):
		return fmt.Errorf("there is no type %d", i.index)
	}
	return nil
}

func (m *module) checkFunction(index uint32) error {
	if uint64(index) >= uint64(len(m.types)) {
		return fmt.Errorf("there is no function %d", index)
	}
	return nil
}

func (m *module) checkGlobal(index uint32) error {
	if index >= m.globals {
		return fmt.Errorf("there is no global %d", index)
	}
	return nil
}

// moves says whether an instruction works in proportion to the length that is on top of the stack.
func moves(i instruction) bool {
	return i.op == opMisc && i.sub >= miscMemoryInit && i.sub != miscDataDrop && i.sub != miscElemDrop && i.sub != miscTableSize
}

// moved returns the index that a function has after the rewriting: the host's function comes behind the other imports.
func (m *module) moved(index uint32) uint32 {
	if index >= m.importedFuncs {
		return index + 1
	}
	return index
}

// appendMoved appends an instruction with the index that it has after the rewriting.
func (m *module) appendMoved(to []byte, i instruction) []byte {
	if i.op == opMisc {
		return appendU32(appendU32(append(to, opMisc), i.sub), m.data.moved(i.index))
	}
	return appendU32(append(to, i.op), m.moved(i.index))
}

// leafCost is what a caller pays for what it calls.
func (m *module) leafCost(index uint32) int64 {
	if index < m.importedFuncs {
		return 0
	}
	if f := &m.functions[index-m.importedFuncs]; f.leaf {
		return f.cost
	}
	return 0
}

// write appends the function as it is after the rewriting.
func (f *function) write(to []byte, m *module) []byte {
	if f.leaf {
		return f.copyCode(append(to, f.raw[:f.code]...), m)
	}
	// Two locals behind all others: what is left, and the length of what is moved.
	r := &reader{bytes: f.raw}
	groups := r.u32()
	if f.pieces {
		to = appendU32(to, groups+2)
	} else {
		to = appendU32(to, groups+1)
	}
	to = append(to, f.raw[r.at:f.code]...)
	to = append(appendU32(to, 1), typeI64)
	if f.pieces {
		to = append(appendU32(to, 1), typeI32)
	}
	return f.copyCode(to, m)
}

// left and length are the function's own locals.
func (f *function) left() uint32   { return uint32(f.params) + f.locals }
func (f *function) length() uint32 { return f.left() + 1 }

// copyCode appends the body with all that is put into it.
func (f *function) copyCode(to []byte, m *module) []byte {
	at := f.code
	for _, e := range f.edits {
		to = append(to, f.raw[at:e.at]...)
		at = e.end
		switch e.kind {
		case endsLoop:
			to = append(to, opEnd, opEnd)
		case branches:
			to = append(to, f.others[e.n]...)
		case atEntry:
			if !f.leaf {
				to = m.appendPay(m.appendCharge(to, f.charges[0]), f.left())
			}
		case atLoop:
			to = f.appendLoop(to, m, e)
		case moved:
			to = m.appendMoved(to, e.instruction)
		case inPieces:
			to = f.appendMove(to, m, e.instruction)
		}
	}
	return append(to, f.raw[at:]...)
}

// appendLoop appends the head of a loop, and another one around it, to which it goes for the host to be called. A call in the loop itself
// would have all that changes in it be kept in memory, each time around, since the compiler keeps no register over a call.
func (f *function) appendLoop(to []byte, m *module, e edit) []byte {
	head := f.raw[e.at:e.end]
	to = append(to, head...)
	to = append(to, opBlock, blockEmpty)
	to = appendU32(append(to, opLocalGet), f.left())
	to = append(to, opI64Const, 0, opI64GeS, opBrIf, 0)
	to = appendU32(append(to, opLocalGet), f.left())
	to = appendU32(append(to, opCall), m.refill())
	to = appendS64(append(to, opI64Const), m.costOf(f.charges[e.n])) // as it is charged once more
	to = appendU32(append(to, opI64Add, opGlobalSet), m.counter())
	to = append(append(to, opEnd), head...)
	to = m.appendCharge(to, f.charges[e.n])
	to = appendU32(append(to, opLocalTee), f.left())
	to = appendU32(append(to, opGlobalSet), m.counter())
	to = appendU32(append(to, opLocalGet), f.left())
	return append(to, opI64Const, 0x3f, opI64ShrU, opI32WrapI64, opBrIf, 1) // of the sign; wazero compares in more instructions
}

func (m *module) costOf(c charge) int64 {
	cost := c.cost
	for _, called := range c.leafs {
		cost += m.leafCost(called)
	}
	return cost
}

// appendCharge appends code that leaves on the stack what the counter has after a charge.
func (m *module) appendCharge(to []byte, c charge) []byte {
	to = appendU32(append(to, opGlobalGet), m.counter())
	return append(appendS64(append(to, opI64Const), m.costOf(c)), opI64Sub)
}

// appendPay appends code that makes what is on the stack the counter, and calls the host where that is used up.
func (m *module) appendPay(to []byte, left uint32) []byte {
	to = appendU32(append(to, opLocalTee), left)
	to = appendU32(append(to, opGlobalSet), m.counter())
	to = append(to, opBlock, blockEmpty)
	to = appendU32(append(to, opLocalGet), left)
	to = append(to, opI64Const, 0, opI64GeS, opBrIf, 0)
	to = appendU32(append(to, opLocalGet), left)
	to = appendU32(append(to, opCall), m.refill())
	to = appendU32(append(to, opLocalTee), left)
	to = appendU32(append(to, opGlobalSet), m.counter())
	return append(to, opEnd)
}

// appendMove appends an instruction whose length is on top of the stack, charged for that, or a call of what does the same in pieces.
func (f *function) appendMove(to []byte, m *module, i instruction) []byte {
	if i.sub != miscTableGrow {
		return appendU32(append(to, opCall), m.inPieces(i))
	}
	to = appendU32(append(to, opLocalTee), f.length())
	to = appendU32(append(to, opGlobalGet), m.counter())
	to = appendU32(append(to, opLocalGet), f.length())
	to = append(to, 0xad) // i64.extend_i32_u
	to = m.appendPay(append(to, opI64Sub), f.left())
	return append(to, f.raw[i.at:i.end]...)
}

// counter is the global behind all others, refill the host's function.
func (m *module) counter() uint32 { return m.globals }
func (m *module) refill() uint32  { return m.importedFuncs }
