package meter

import (
	"bytes"
	"fmt"
)

const (
	// maxTables is how many tables a module may have: as many as browsers allow (WebAssembly JavaScript Interface, section 9).
	maxTables = 100_000
	// maxLocals is how many locals a function may have. Browsers allow 50,000.
	maxLocals = 1 << 20
)

// valueTypes are those of WebAssembly 2.0: numbers, vectors and references.
var valueTypeBytes = []byte{typeI32, typeI64, 0x7d, 0x7c, 0x7b, typeFuncref, typeExternref}

// TooManyElementsError is a module whose tables, or element segments, begin with more than they may have.
type TooManyElementsError struct{ Elements, Most uint64 }

func (e *TooManyElementsError) Error() string {
	return fmt.Sprintf("its tables begin with %d elements, and %d are allowed", e.Elements, e.Most)
}

// Bound returns the module as it may be compiled and run at all, metered or not. An error says what is malformed.
//
// Whoever compiles a module takes its word for how many things follow, and makes room for them; a few bytes may speak of four thousand million.
// So nothing may be announced that does not come. Nor may a function be such that to compile it takes far longer, or far more memory, than its size says.
//
// Its tables never have more than so many elements, together: beyond that table.grow answers -1, as the specification has it. What they
// could grow by is shared equally among those that can grow. Elements are memory of the host's, eight bytes each, that no limit of linear
// memory bounds.
//
// Names that can't be read are left out.
func Bound(wasm []byte, elements uint32) ([]byte, error) {
	rest, ok := bytes.CutPrefix(wasm, header)
	if !ok {
		return nil, errHeader
	}
	out := append(make([]byte, 0, len(wasm)+len(wasm)>>10), header...)
	last := 0
	named := false
	for r := (&reader{bytes: rest}); r.more(); {
		id := r.byte()
		body := r.sized()
		err := r.err
		if at, known := order[id]; err == nil && id != secCustom {
			if !known || at <= last {
				err = errOrder
			}
			last = at
		}
		content := body.bytes
		switch {
		case err != nil:
		case id == secCustom:
			name := body.text()
			if err = body.err; err == nil && name == "name" {
				if named || !readable(content) {
					continue
				}
				named = true
			}
		case id == secTable:
			content, err = boundTables(body, elements)
		default:
			err = walk(id, body, elements)
		}
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
		out = appendSection(out, id, content)
	}
	return out, nil
}

// walk passes a section, to its end.
func walk(id byte, r *reader, elements uint32) error {
	switch id {
	case secStart, secCount:
		r.u32()
		return r.whole()
	case secElement:
		return boundSegments(r, elements)
	}
	var e effort
	for range r.count() {
		switch id {
		case secType:
			if form := r.byte(); form != typeFunc {
				r.fail(fmt.Errorf("a type of the form %#x is not of WebAssembly 2.0", form))
			}
			r.types(r.count())
			r.types(r.count())
		case secImport:
			r.skipName()
			r.skipName()
			r.imported()
		case secFunction:
			r.u32()
		case secMemory:
			r.limits()
		case secGlobal:
			r.types(1)
			r.byte()
			r.expression()
		case secExport:
			r.skipName()
			r.byte()
			r.u32()
		case secCode:
			r.code(&e)
		case secData:
			r.data()
		}
		if r.err != nil {
			break
		}
	}
	return r.whole()
}

// types passes types of values.
func (r *reader) types(n uint32) {
	for _, t := range r.take(n) {
		if !bytes.Contains(valueTypeBytes, []byte{t}) {
			r.fail(fmt.Errorf("the type %#x is not of WebAssembly 2.0", t))
		}
	}
}

// imported passes what is imported under a name.
func (r *reader) imported() {
	switch kind := r.byte(); kind {
	case 0:
		r.u32()
	case 1:
		r.types(1)
		r.limits()
	case 2:
		r.limits()
	case 3:
		r.types(1)
		r.byte()
	default:
		r.fail(fmt.Errorf("an import of the kind %d is not of WebAssembly 2.0", kind))
	}
}

// code passes a function, with a look at its locals and at what its compilation takes.
func (r *reader) code(e *effort) {
	body := r.sized()
	var locals uint64
	for range body.count() {
		locals += uint64(body.u32())
		body.types(1)
	}
	switch {
	case body.err != nil:
		r.fail(body.err)
	case locals > maxLocals:
		r.fail(fmt.Errorf("a function has %d locals, and %d are allowed", locals, maxLocals))
	default:
		if err := e.add(body); err != nil {
			r.fail(err)
		}
	}
}

// data passes a data segment.
func (r *reader) data() {
	flags := r.u32()
	if flags > 2 {
		r.fail(fmt.Errorf("a data segment with the flags %d is not of WebAssembly 2.0", flags))
	}
	if flags == 2 {
		r.u32()
	}
	if flags != 1 {
		r.expression()
	}
	r.skipName()
}

func boundTables(r *reader, most uint32) ([]byte, error) {
	type table struct {
		what        byte
		least, most uint32
	}
	var (
		tables         []table
		least, growing uint64
	)
	n := r.count()
	if n > maxTables {
		return nil, fmt.Errorf("it has %d tables, and %d are allowed", n, maxTables)
	}
	for range n {
		t := table{what: r.byte()}
		if t.what != typeFuncref && t.what != typeExternref {
			r.fail(fmt.Errorf("a table of the type %#x is not of WebAssembly 2.0", t.what))
		}
		t.least, t.most = r.limits()
		least += uint64(t.least)
		if t.most > t.least {
			growing++
		}
		tables = append(tables, t)
	}
	if err := r.whole(); err != nil {
		return nil, err
	}
	if least > uint64(most) {
		return nil, &TooManyElementsError{least, uint64(most)}
	}
	share := (uint64(most) - least) / max(growing, 1)
	out := appendU32(nil, uint32(len(tables)))
	for _, t := range tables {
		out = appendU32(append(out, t.what, 1), t.least)
		// One that begins with more than it may have stays so, and is refused.
		out = appendU32(out, uint32(min(uint64(t.most), uint64(t.least)+share)))
	}
	return out, nil
}

// boundSegments refuses passive segments that have too many elements: each instance has them all in a form as large as a table's.
func boundSegments(r *reader, most uint32) error {
	var elements uint64
	for range r.count() {
		s := r.segment()
		if !s.passive {
			r.expression()
		}
		if s.passive || s.explicit {
			if kind := r.byte(); kind != 0 && kind != typeFuncref && kind != typeExternref {
				r.fail(fmt.Errorf("an element segment of the kind %#x is not of WebAssembly 2.0", kind))
			}
		}
		count := r.count()
		if r.err != nil {
			break
		}
		if s.passive {
			elements += uint64(count)
		}
		for range count {
			if s.expressions {
				r.expression()
			} else {
				r.u32()
			}
		}
	}
	if elements > uint64(most) {
		return &TooManyElementsError{elements, uint64(most)}
	}
	return r.whole()
}

// expression passes a constant expression.
func (r *reader) expression() {
	for r.err == nil {
		i, err := r.next()
		if err != nil {
			r.fail(err)
		}
		if i.op == opEnd {
			return
		}
	}
}
