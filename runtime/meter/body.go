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
	moves   []instruction // that work in proportion to a length
	calls   []instruction // calls, references and others whose index moves
	cost    int64         // of a leaf; what its caller is charged
	leaf    bool
}

// charge is a point at which the code that follows is charged.
type charge struct {
	at    int // after the loop's head, or where the body begins
	cost  int64
	leafs []uint32 // what is called from there, and may be a leaf
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
	f.charges = []charge{{at: r.at, cost: 1}}
	// Which charge each open block belongs to; of a loop its own.
	open := []int{0}
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
		at := open[len(open)-1]
		f.charges[at].cost += i.cost()
		switch i.op {
		case opBlock, opIf:
			open = append(open, at)
		case opLoop:
			f.leaf = false
			f.charges = append(f.charges, charge{at: i.end, cost: 1})
			open = append(open, len(f.charges)-1)
		case opEnd:
			open = open[:len(open)-1]
		case opCall:
			f.leaf = false
			f.charges[at].leafs = append(f.charges[at].leafs, i.index)
			f.calls = append(f.calls, i)
		case opRefFunc:
			f.calls = append(f.calls, i)
		case opCallIndirect, opMemoryGrow:
			f.leaf = false
		case opMisc:
			if moves(i) {
				f.leaf = false
				f.moves = append(f.moves, i)
				if err := m.needPiece(i); err != nil {
					return f, err
				}
			}
			if i.sub == miscDataDrop {
				f.calls = append(f.calls, i)
			}
		}
	}
	f.cost = f.charges[0].cost
	f.leaf = f.leaf && f.cost <= leafMost
	return f, r.whole()
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
		return f.copyCode(append(to, f.raw[:f.code]...), m, nil)
	}
	// Two locals behind all others: what is left, and the length of what is moved.
	r := &reader{bytes: f.raw}
	groups := r.u32()
	if len(f.moves) > 0 {
		to = appendU32(to, groups+2)
	} else {
		to = appendU32(to, groups+1)
	}
	to = append(to, f.raw[r.at:f.code]...)
	to = append(appendU32(to, 1), typeI64)
	if len(f.moves) > 0 {
		to = append(appendU32(to, 1), typeI32)
	}
	return f.copyCode(to, m, f.charges)
}

// left and length are the function's own locals.
func (f *function) left() uint32   { return uint32(f.params) + f.locals }
func (f *function) length() uint32 { return f.left() + 1 }

// copyCode appends the body with all that is put into it.
func (f *function) copyCode(to []byte, m *module, charges []charge) []byte {
	at, calls, moving := f.code, f.calls, f.moves
	if f.leaf {
		moving = nil
	}
	for {
		// The next of three kinds of changes, in the order of the code.
		next, kind := len(f.raw), 0
		if len(charges) > 0 && charges[0].at < next {
			next, kind = charges[0].at, 1
		}
		if len(calls) > 0 && calls[0].at < next {
			next, kind = calls[0].at, 2
		}
		if len(moving) > 0 && moving[0].at < next {
			next, kind = moving[0].at, 3
		}
		to = append(to, f.raw[at:next]...)
		at = next
		switch kind {
		case 0:
			return to
		case 1:
			cost := charges[0].cost
			for _, called := range charges[0].leafs {
				cost += m.leafCost(called)
			}
			to = m.appendCharge(to, cost, f.left())
			charges = charges[1:]
		case 2:
			to = m.appendMoved(to, calls[0])
			at, calls = calls[0].end, calls[1:]
		case 3:
			to, at = f.appendMove(to, m, moving[0]), moving[0].end
			moving = moving[1:]
		}
	}
}

// appendCharge appends code that charges a constant.
func (m *module) appendCharge(to []byte, cost int64, left uint32) []byte {
	to = appendU32(append(to, opGlobalGet), m.counter())
	to = appendS64(append(to, opI64Const), cost)
	return m.appendPay(append(to, opI64Sub), left)
}

// appendPay appends code that makes what is on the stack the counter, and calls the host where that is used up.
func (m *module) appendPay(to []byte, left uint32) []byte {
	to = appendU32(append(to, opLocalTee), left)
	to = appendU32(append(to, opGlobalSet), m.counter())
	to = appendU32(append(to, opLocalGet), left)
	to = append(to, opI64Const, 0, opI64LtS, opIf, blockEmpty)
	to = appendU32(append(to, opLocalGet), left)
	to = appendU32(append(to, opCall), m.refill())
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
