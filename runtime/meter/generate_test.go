package meter

// generator makes a valid module of bytes: each choice is made by the next of them, and by 0 when there are no more.
type generator struct {
	choices []byte
	code    []byte
	locals  []byte // types
	results []byte // of the function
	labels  []byte // what a branch to each open block takes, the innermost last: a type, or 0 for nothing
	budget  int    // of instructions, so that bodies stay small
}

const (
	typeF32 = 0x7d
	typeF64 = 0x7c

	functions = 6
	// The type of a block that takes two values and leaves two, behind those of the functions.
	typeSwap = functions
	several  = 0xff // what a branch to such a block takes
)

var valueTypes = []byte{typeI32, typeI64, typeF32, typeF64}

// signatures are the types of functions: parameters and result.
var signatures = []struct{ params, results []byte }{
	{[]byte{typeI32, typeI64}, []byte{typeI32}},
	{nil, nil},
	{[]byte{typeF64}, []byte{typeF64}},
	{[]byte{typeI64, typeI32, typeF32}, []byte{typeI64}},
	{[]byte{typeI32}, []byte{typeF32}},
	{[]byte{typeF32, typeI32}, []byte{typeI64, typeI32}},
}

// generate returns a module with a function of each signature, exported as "0" to "5", a memory "m", a table of all functions and one
// more, segments of data and elements that are put in place and ones that are not, and a global of each type, exported by the letters a to d.
func generate(choices []byte) []byte {
	g := &generator{choices: choices}
	types, funcs, exports := []byte{secType, functions + 1}, []byte{secFunction, functions}, []byte{secExport, functions + 5}
	for n, s := range signatures {
		types = append(append(types, typeFunc, byte(len(s.params))), s.params...)
		types = append(append(types, byte(len(s.results))), s.results...)
		funcs = append(funcs, byte(n))
		exports = append(exports, 1, '0'+byte(n), 0, byte(n))
	}
	types = append(types, typeFunc, 2, typeI32, typeI64, 2, typeI64, typeI32)
	exports = append(exports, 1, 'm', 2, 0)
	globals := []byte{secGlobal, 4}
	for n, typ := range valueTypes {
		globals = append(append(append(globals, typ, 1), constant(typ, byte(n))...), opEnd)
		exports = append(exports, 1, 'a'+byte(n), 3, byte(n))
	}
	elements := []byte{secElement, 2, 0, opI32Const, 0, opEnd, functions}
	for n := range byte(functions) {
		elements = append(elements, n)
	}
	elements = append(elements, 1, 0, 4, 1, 0, 3, 2) // a passive one of four
	code := []byte{secCode, functions}
	for _, s := range signatures {
		code = appendSized(code, g.function(s.params, s.results))
	}
	data := append([]byte{secData, 2, 0, opI32Const, 16, opEnd, 8}, "whatever"...)
	data = append(append(data, 1, 40), "a segment that is put nowhere by itself."...)
	tables := []byte{secTable, 2, typeFuncref, 0, 8, typeFuncref, 1, 3, 20}
	return build(types, funcs, tables, []byte{5, 1, 1, 1, 3}, globals, exports, elements, []byte{secCount, 2}, code, data)
}

func constant(typ, n byte) []byte {
	switch typ {
	case typeI32:
		return append([]byte{opI32Const}, appendS64(nil, int64(int8(n)))...)
	case typeI64:
		return append([]byte{opI64Const}, appendS64(nil, int64(int8(n)))...)
	case typeF32:
		return []byte{0x43, 0, 0, n, 0x3f}
	}
	return []byte{0x44, 0, 0, 0, 0, 0, n, 0xf0 | n&0x8f, 0x3f}
}

func (g *generator) byte() byte {
	if len(g.choices) == 0 {
		return 0
	}
	b := g.choices[0]
	g.choices = g.choices[1:]
	return b
}

func (g *generator) pick(n int) int { return int(g.byte()) % n }

func (g *generator) op(b ...byte) { g.code = append(g.code, b...) }

func (g *generator) function(params, results []byte) []byte {
	g.code, g.budget, g.results = nil, 120, results
	g.locals = append(append([]byte{}, params...), valueTypes...)
	g.labels = []byte{0}
	if len(results) > 0 {
		g.labels[0] = several
	}
	g.statements(4)
	for _, typ := range results {
		g.value(typ, 4)
	}
	g.op(opEnd)
	out := []byte{4}
	for _, t := range valueTypes {
		out = append(out, 1, t)
	}
	return append(out, g.code...)
}

func (g *generator) statements(depth int) {
	for range 1 + g.pick(4) {
		g.statement(depth)
	}
}

// statement adds code that leaves the stack as it was.
func (g *generator) statement(depth int) {
	if g.budget--; g.budget < 0 || depth == 0 {
		return
	}
	switch g.pick(16) {
	case 0, 1:
		at := g.pick(len(g.locals))
		g.value(g.locals[at], depth-1)
		g.op(opLocalSet, byte(at))
	case 2:
		at := g.pick(4)
		g.value(valueTypes[at], depth-1)
		g.op(opGlobalSet, byte(at))
	case 3:
		g.value(typeI32, depth-1)
		g.value(typeI32, depth-1)
		g.op(0x36, 0, g.byte()&0x7f) // i32.store
	case 4:
		g.value(typeI32, depth-1)
		g.value(typeI64, depth-1)
		g.op(0x37, 0, g.byte()&0x7f) // i64.store
	case 5:
		g.value(typeI32, depth-1)
		g.block(opIf, 0, func() {
			g.statements(depth - 1)
			if g.pick(2) == 0 {
				g.op(opElse)
				g.statements(depth - 1)
			}
		})
	case 6, 7:
		g.block(opLoop, 0, func() {
			g.statements(depth - 1)
			g.value(typeI32, depth-1)
			g.op(opBrIf, 0)
		})
	case 8:
		g.block(opBlock, 0, func() {
			g.statements(depth - 1)
			g.branch(depth - 1)
			g.statements(depth - 1)
		})
	case 9:
		g.call(g.pick(functions), depth-1, true)
	case 10:
		g.move(depth - 1)
	case 11:
		g.indirect(depth - 1)
	case 12:
		g.block(opBlock, 0, func() {
			g.block(opBlock, 0, func() {
				g.value(typeI32, depth-1)
				g.op(opBrTable, 1, 0, 1)
			})
			g.statements(depth - 1)
		})
	case 13:
		g.value(typeI32, depth-1)
		g.block(opIf, 0, func() {
			for _, typ := range g.results {
				g.value(typ, depth-1)
			}
			g.op(opReturn)
		})
	case 14:
		switch g.pick(4) {
		case 0:
			g.value(typeI32, depth-1)
			g.block(opIf, 0, func() { g.op(0x00) }) // unreachable
		case 1:
			g.op(opMisc, []byte{miscDataDrop, miscElemDrop}[g.pick(2)], byte(g.pick(2)))
		default:
			g.swap(depth - 1)
		}
	default:
		g.value(valueTypes[g.pick(4)], depth-1)
		g.op(0x1a)
	}
}

// move adds an instruction that does as much as its operands say, often within bounds.
func (g *generator) move(depth int) {
	operand := func() {
		g.value(typeI32, depth)
		if g.pick(4) > 0 {
			g.op(opI32Const, 7, 0x71) // and
		}
	}
	reference := func() {
		if n := g.pick(functions + 1); n < functions {
			g.op(opRefFunc, byte(n))
		} else {
			g.op(opRefNull, typeFuncref)
		}
	}
	first, second := byte(g.pick(2)), byte(g.pick(2))
	switch sub := miscMemoryInit + g.byte()%(miscTableFill-miscMemoryInit+1); sub {
	case miscTableGrow: // by little, of a table that has no bound
		reference()
		g.value(typeI32, depth)
		g.op(opI32Const, 3, 0x71)
		g.op(opMisc, sub, first, 0x1a)
	case miscTableSize:
		g.op(opMisc, sub, first, opGlobalSet, 0)
	case miscTableFill:
		operand()
		reference()
		operand()
		g.op(opMisc, sub, first)
	case miscMemoryFill, miscDataDrop, miscElemDrop:
		operand()
		g.value(typeI32, depth)
		operand()
		g.op(opMisc, miscMemoryFill, 0)
	default: // the second is a memory, which is 0, or a table
		operand()
		operand()
		operand()
		switch sub {
		case miscMemoryCopy:
			first, second = 0, 0
		case miscMemoryInit:
			second = 0
		}
		g.op(opMisc, sub, first, second)
	}
}

// swap adds a block or a loop that takes two values and leaves two.
func (g *generator) swap(depth int) {
	g.value(typeI32, depth)
	g.value(typeI64, depth)
	op := []byte{opBlock, opLoop}[g.pick(2)]
	g.op(op, typeSwap)
	g.labels = append(g.labels, several)
	g.op(0x1a, 0x1a)
	g.statements(depth)
	if op == opLoop {
		g.value(typeI32, depth)
		g.value(typeI64, depth)
		g.value(typeI32, depth)
		g.op(opBrIf, 0, 0x1a, 0x1a)
	}
	g.value(typeI64, depth)
	g.value(typeI32, depth)
	g.labels = g.labels[:len(g.labels)-1]
	g.op(opEnd, opGlobalSet, 0, opGlobalSet, 1)
}

// branch leaves one of the open blocks that take nothing, on a condition.
func (g *generator) branch(depth int) {
	to := g.pick(len(g.labels))
	if g.labels[len(g.labels)-1-to] != 0 {
		return
	}
	g.value(typeI32, depth)
	g.op(opBrIf, byte(to))
}

func (g *generator) block(op, typ byte, body func()) {
	label := typ
	if op == opLoop {
		label = 0 // a loop is branched to at its head
	}
	if typ == 0 {
		g.op(op, blockEmpty)
	} else {
		g.op(op, typ)
	}
	g.labels = append(g.labels, label)
	body()
	g.labels = g.labels[:len(g.labels)-1]
	g.op(opEnd)
}

func (g *generator) call(n, depth int, drop bool) {
	s := signatures[n]
	for _, p := range s.params {
		g.value(p, depth)
	}
	g.op(opCall, byte(n))
	for range s.results {
		if drop {
			g.op(0x1a)
		}
	}
}

func (g *generator) indirect(depth int) {
	n := g.pick(functions)
	for _, p := range signatures[n].params {
		g.value(p, depth)
	}
	g.value(typeI32, depth)
	g.op(opI32Const, 7, 0x71) // and: an entry, an empty one, or one of another type
	g.op(opCallIndirect, byte(n), 0)
	for range signatures[n].results {
		g.op(0x1a)
	}
}

// The binary operators of each type, and those that make one of another type.
var (
	operators = map[byte][]byte{
		typeI32: {0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x77, 0x46, 0x48, 0x49, 0x4a},
		typeI64: {0x7c, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89},
		typeF32: {0x92, 0x93, 0x94, 0x95, 0x96, 0x97},
		typeF64: {0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5},
	}
	conversions = map[byte][][2]byte{ // from, operator
		typeI32: {{typeI64, 0xa7}, {typeI64, 0x50}, {typeI32, 0x45}, {typeI32, 0x67}, {typeI32, 0xc0}, {typeF64, 0xaa}},
		typeI64: {{typeI32, 0xac}, {typeI32, 0xad}, {typeI64, 0x79}, {typeI64, 0xc4}, {typeF32, 0xae}},
		typeF32: {{typeI32, 0xb2}, {typeF64, 0xb6}, {typeF32, 0x8c}},
		typeF64: {{typeI64, 0xb9}, {typeF32, 0xbb}, {typeF64, 0x9f}},
	}
)

// value adds code that leaves one value on the stack.
func (g *generator) value(typ byte, depth int) {
	g.budget--
	if depth <= 0 || g.budget < 0 {
		g.op(constant(typ, g.byte())...)
		return
	}
	switch g.pick(12) {
	case 0:
		g.op(constant(typ, g.byte())...)
	case 1, 2, 3:
		from := g.pick(len(g.locals))
		for range g.locals {
			if g.locals[from] == typ {
				break
			}
			from = (from + 1) % len(g.locals)
		}
		g.op(opLocalGet, byte(from))
	case 4:
		for n, t := range valueTypes {
			if t == typ {
				g.op(opGlobalGet, byte(n))
			}
		}
	case 5:
		c := conversions[typ][g.pick(len(conversions[typ]))]
		g.value(c[0], depth-1)
		g.op(c[1])
	case 6:
		g.value(typeI32, depth-1)
		switch typ {
		case typeI32:
			g.op(0x28, 0, g.byte()&0x7f)
		case typeI64:
			g.op(0x29, 0, g.byte()&0x7f)
		default:
			g.op(0x1a)
			g.op(constant(typ, g.byte())...)
		}
	case 7:
		for n, s := range signatures {
			if len(s.results) == 1 && s.results[0] == typ {
				g.call(n, depth-1, false)
				return
			}
		}
	case 8:
		g.value(typeI32, depth-1)
		g.block(opIf, typ, func() {
			g.value(typ, depth-1)
			g.op(opElse)
			g.value(typ, depth-1)
		})
	case 9:
		g.value(typ, depth-1)
		g.value(typ, depth-1)
		g.value(typeI32, depth-1)
		g.op(opSelect)
	case 10:
		if typ == typeI32 {
			g.op(opI32Const, byte(g.pick(2)), opMemoryGrow, 0)
			return
		}
		g.block(opLoop, typ, func() {
			g.statement(depth - 1)
			g.value(typ, depth-1)
		})
	default:
		g.value(typ, depth-1)
		g.value(typ, depth-1)
		g.op(operators[typ][g.pick(len(operators[typ]))])
	}
}
