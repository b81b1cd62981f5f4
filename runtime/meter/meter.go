package meter

import (
	"bytes"
	"errors"
	"fmt"
)

// Version is that of the rewriting: code that another version has compiled is not this one's.
const Version = 6

// What a rewritten module imports: a function of the type (i64) -> (i64), which is called with what is left, at most
// nothing, and returns what the guest may use up until the next call.
const (
	HostModule = "wasmatrix:meter"
	HostRefill = "refill"
	// Counter is by what name it exports its counter, for the host to read: guests are not linked to one another.
	Counter = HostModule + "/counter"
)

const (
	// leafMost is what a function without loops and calls may cost to be charged where it is called.
	leafMost = 32
	// pieceBytes is how much memory is moved between two charges, and pieceElements how many elements of tables, of eight bytes each.
	// One unit is for 16 bytes, or two elements.
	pieceBytes, bytesShift       = 64 << 10, 4
	pieceElements, elementsShift = pieceBytes / 8, 1
	// pieceCost is what a piece costs by itself.
	pieceCost = 16
	// maxFunctions bounds what a module may have, so that an index never needs more than 32 bits.
	maxFunctions = 1 << 24
)

// ErrReserved is a module that imports or exports what only metering may.
var ErrReserved = errors.New("the module imports from " + HostModule + " or exports " + Counter + ", which are reserved")

// Rewrite returns the module with metering in it. The error says why a module can't have that: it is malformed, or has
// instructions that are not of WebAssembly 2.0. What it returns is valid if the module was, and only then; that is left to whoever
// compiles it.
func Rewrite(module []byte) ([]byte, error) {
	m, err := parse(module)
	if err != nil {
		return nil, err
	}
	return m.write()
}

var (
	errHeader   = errors.New("it does not begin as a core module of version 1 does")
	errSpelling = errors.New("it is not of WebAssembly 2.0, or spelled longer than it is")
	errText     = errors.New("a name is no text")
	errOrder    = errors.New("it is unknown, or not in its place")
)

// header is how each module begins.
var header = []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

// The sections.
const (
	secCustom   = 0
	secType     = 1
	secImport   = 2
	secFunction = 3
	secTable    = 4
	secMemory   = 5
	secGlobal   = 6
	secExport   = 7
	secStart    = 8
	secElement  = 9
	secCode     = 10
	secData     = 11
	secCount    = 12 // of data segments; between elements and code
)

// order is where a section stands.
var order = map[byte]int{secType: 1, secImport: 2, secFunction: 3, secTable: 4, secMemory: 5, secGlobal: 6, secExport: 7, secStart: 8, secElement: 9, secCount: 10, secCode: 11, secData: 12}

// section is one as it was read.
type section struct {
	id   byte
	body []byte
}

// module is what has to be known of one to rewrite it.
type module struct {
	sections []section

	params          []int // of each type
	importedFuncs   uint32
	importedGlobals uint32
	types           []uint32 // of each function, imported ones first
	tables          []byte   // what each holds, imported ones first
	globals         uint32   // imported ones, too
	functions       []function
	pieces          []piece // what has to be done in pieces
	pieceAt         map[piece]uint32
	data            dataMoves
}

func parse(raw []byte) (*module, error) {
	rest, ok := bytes.CutPrefix(raw, header)
	if !ok {
		return nil, errHeader
	}
	m := &module{pieceAt: map[piece]uint32{}}
	last := 0
	for r := (&reader{bytes: rest}); r.more(); {
		id := r.byte()
		body := r.sized()
		if r.err != nil {
			return nil, fmt.Errorf("section %d: %w", id, r.err)
		}
		m.sections = append(m.sections, section{id, body.bytes})
		if id == secCustom {
			continue
		}
		if at, known := order[id]; !known || at <= last {
			return nil, fmt.Errorf("section %d: %w", id, errOrder)
		}
		last = order[id]
		if err := m.read(id, body); err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
	}
	if len(m.functions) != len(m.types)-int(m.importedFuncs) {
		return nil, fmt.Errorf("%d functions are declared, and %d have code", len(m.types)-int(m.importedFuncs), len(m.functions))
	}
	return m, nil
}

// read notes what a section says that the rewriting of others depends on.
func (m *module) read(id byte, r *reader) error {
	switch id {
	case secType:
		return m.readTypes(r)
	case secImport:
		return m.readImports(r)
	case secFunction:
		for range r.count() {
			if err := m.declare(r.u32()); err != nil {
				return err
			}
		}
	case secTable:
		for range r.count() {
			m.tables = append(m.tables, r.byte())
			r.limits()
		}
	case secGlobal:
		m.globals += r.count()
		return r.err
	case secCode:
		return m.readCode(r)
	case secData:
		return m.readData(r)
	default:
		return nil
	}
	return r.whole()
}

// count reads how many things follow. Each takes a byte at the least.
func (r *reader) count() uint32 {
	n := r.u32()
	if uint64(n) > uint64(len(r.bytes)-r.at) {
		r.fail(errShort)
		return 0
	}
	return n
}

// whole returns the error of reading something to its end, if that was it.
func (r *reader) whole() error {
	if r.err == nil && r.more() {
		return fmt.Errorf("%d bytes are left over", len(r.bytes)-r.at)
	}
	return r.err
}

func (m *module) readTypes(r *reader) error {
	for range r.count() {
		if form := r.byte(); form != typeFunc && r.err == nil {
			return fmt.Errorf("a type of the form %#x is not of WebAssembly 2.0", form)
		}
		params := r.count()
		r.types(params)
		r.types(r.count())
		m.params = append(m.params, int(params))
	}
	return r.whole()
}

func (m *module) declare(typ uint32) error {
	if uint64(typ) >= uint64(len(m.params)) {
		return fmt.Errorf("there is no type %d", typ)
	}
	if len(m.types) >= maxFunctions {
		return fmt.Errorf("it has more than %d functions", maxFunctions)
	}
	m.types = append(m.types, typ)
	return nil
}

func (m *module) readImports(r *reader) error {
	for range r.count() {
		from := r.take(r.u32())
		r.skip(r.u32())
		if string(from) == HostModule {
			return ErrReserved
		}
		switch kind := r.byte(); kind {
		case 0:
			if err := m.declare(r.u32()); err != nil && r.err == nil {
				return err
			}
			m.importedFuncs++
		case 1:
			m.tables = append(m.tables, r.byte())
			r.limits()
		case 2:
			r.limits()
		case 3:
			r.skip(2)
			m.importedGlobals++
		default:
			return fmt.Errorf("an import of the kind %d is not of WebAssembly 2.0", kind)
		}
	}
	m.globals = m.importedGlobals
	return r.whole()
}

// limits reads the size of a table or memory. One without a bound may have as much as an index can name.
func (r *reader) limits() (least, most uint32) {
	flags := r.byte()
	if flags > 1 {
		r.fail(fmt.Errorf("limits with the flags %#x are not of WebAssembly 2.0", flags))
	}
	least, most = r.u32(), 1<<32-1
	if flags == 1 {
		most = r.u32()
	}
	return least, most
}
