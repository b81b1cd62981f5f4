package meter

import (
	"fmt"
	"slices"
)

// write returns the module as it is after the rewriting.
func (m *module) write() ([]byte, error) {
	size := 0
	for _, s := range m.sections {
		size += len(s.body)
	}
	out := append(make([]byte, 0, size+size/8), header...) // it grows by 3 to 11 %
	// Sections that are not there may have to be made, in their places.
	made := map[byte]bool{}
	ensure := func(before int) {
		for _, id := range []byte{secType, secImport, secGlobal, secExport} {
			if order[id] < before && !made[id] {
				made[id] = true
				out = appendSection(out, id, m.rewritten(id, nil))
			}
		}
	}
	for _, s := range m.sections {
		if s.id == secCustom {
			body, keep := m.custom(s.body)
			if keep {
				out = appendSection(out, s.id, body)
			}
			continue
		}
		ensure(order[s.id])
		made[s.id] = true
		body, err := m.section(s)
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", s.id, err)
		}
		out = appendSection(out, s.id, body)
	}
	return out, nil
}

func appendSection(to []byte, id byte, body []byte) []byte { return appendSized(append(to, id), body) }

// section returns what becomes of a section.
func (m *module) section(s section) ([]byte, error) {
	r := &reader{bytes: s.body}
	switch s.id {
	case secType, secImport, secFunction:
		return m.rewritten(s.id, s.body), nil
	case secGlobal:
		moved, err := m.moveGlobals(r)
		return m.rewritten(s.id, moved), err
	case secExport:
		moved, err := m.exports(r)
		return m.rewritten(s.id, moved), err
	case secStart:
		start := r.u32()
		if err := m.checkFunction(start); err != nil {
			return nil, err
		}
		return appendU32(nil, m.moved(start)), r.whole()
	case secElement:
		return m.elements(r)
	case secData:
		return m.writeData(s.body)
	case secCount:
		return appendU32(nil, m.data.moved(r.u32())), r.whole()
	case secCode:
		return m.code(), nil
	}
	return s.body, nil
}

// rewritten returns a section with what is put behind what it has. It was read before.
func (m *module) rewritten(id byte, body []byte) []byte {
	r := &reader{bytes: body}
	var n uint32
	if len(body) > 0 {
		n = r.u32()
	}
	rest := body[r.at:]
	types := uint32(len(m.params))
	switch id {
	case secType: // of the host's function, and of those that do something in pieces
		out := append(appendU32(nil, n+1+uint32(len(pieceTypes))), rest...)
		out = append(out, typeFunc, 1, typeI64, 1, typeI64)
		for _, what := range pieceTypes {
			out = append(out, typeFunc, 3, typeI32, what, typeI32, 0)
		}
		return out
	case secImport:
		out := append(appendU32(nil, n+1), rest...)
		out = appendSized(appendSized(out, []byte(HostModule)), []byte(HostRefill))
		return appendU32(append(out, 0), types)
	case secGlobal:
		out := append(appendU32(nil, n+1), rest...)
		return append(out, typeI64, 1, opI64Const, 0, opEnd)
	case secExport:
		out := append(appendU32(nil, n+1), rest...)
		return appendU32(append(appendSized(out, []byte(Counter)), 3), m.counter())
	default: // of functions
		out := append(appendU32(nil, n+uint32(len(m.pieces))), rest...)
		for _, p := range m.pieces {
			out = appendU32(out, types+1+uint32(slices.Index(pieceTypes, p.what)))
		}
		return out
	}
}

// moveGlobals moves the functions in the first values of globals.
func (m *module) moveGlobals(r *reader) ([]byte, error) {
	n := r.count()
	out := appendU32(nil, n)
	for range n {
		out = append(out, r.take(2)...)
		var err error
		if out, err = m.expression(out, r); err != nil {
			return nil, err
		}
	}
	return out, r.whole()
}

func (m *module) exports(r *reader) ([]byte, error) {
	n := r.count()
	out := appendU32(nil, n)
	for range n {
		name := r.take(r.u32())
		if string(name) == Counter {
			return nil, ErrReserved
		}
		out = appendSized(out, name)
		kind, index := r.byte(), r.u32()
		var err error
		switch kind {
		case 0:
			err = m.checkFunction(index)
			index = m.moved(index)
		case 3:
			err = m.checkGlobal(index)
		}
		if err != nil && r.err == nil {
			return nil, err
		}
		out = appendU32(append(out, kind), index)
	}
	return out, r.whole()
}

// segment is the head of an element segment (WebAssembly 2.0, section 5.5.12). Declarative ones count as passive.
type segment struct {
	flags                          uint32
	passive, explicit, expressions bool
	table                          uint32
}

func (r *reader) segment() segment {
	flags := r.u32()
	if flags > 7 {
		r.fail(fmt.Errorf("an element segment with the flags %d is not of WebAssembly 2.0", flags))
	}
	s := segment{flags: flags, passive: flags&1 != 0, explicit: flags&2 != 0, expressions: flags&4 != 0}
	if s.explicit && !s.passive {
		s.table = r.u32()
	}
	return s
}

// elements moves the functions in element segments.
func (m *module) elements(r *reader) ([]byte, error) {
	n := r.count()
	out := appendU32(nil, n)
	for range n {
		s := r.segment()
		out = appendU32(out, s.flags)
		if !s.passive {
			if s.explicit {
				out = appendU32(out, s.table)
			}
			var err error
			if out, err = m.expression(out, r); err != nil {
				return nil, err
			}
		}
		if s.passive || s.explicit {
			out = append(out, r.byte()) // the kind, or type
		}
		count := r.count()
		out = appendU32(out, count)
		for range count {
			if s.expressions {
				var err error
				if out, err = m.expression(out, r); err != nil {
					return nil, err
				}
				continue
			}
			index := r.u32()
			if err := m.checkFunction(index); err != nil && r.err == nil {
				return nil, err
			}
			out = appendU32(out, m.moved(index))
		}
	}
	return out, r.whole()
}

// expression appends a constant expression, its functions moved.
func (m *module) expression(to []byte, r *reader) ([]byte, error) {
	for {
		i, err := r.next()
		if err == nil {
			err = m.check(i)
		}
		if err != nil {
			return nil, err
		}
		if i.op == opRefFunc {
			to = appendU32(append(to, opRefFunc), m.moved(i.index))
		} else {
			to = append(to, r.bytes[i.at:i.end]...)
		}
		if i.op == opEnd {
			return to, nil
		}
	}
}

func (m *module) code() []byte {
	size := 0
	for at := range m.functions {
		size += len(m.functions[at].raw)
	}
	out := appendU32(make([]byte, 0, size+size/4), uint32(len(m.functions)+len(m.pieces)))
	var body []byte
	for at := range m.functions {
		body = m.functions[at].write(body[:0], m)
		out = appendSized(out, body)
	}
	for _, p := range m.pieces {
		out = appendSized(out, p.function(m))
	}
	return out
}
