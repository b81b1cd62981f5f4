package meter

import (
	"bytes"
	"fmt"
)

// segmentBytes is how much data is put into the memory at once before a module starts. The host does it, in one go for each segment, so
// those that are longer become several.
const segmentBytes = 1 << 20

// dataMoves is where data segments are after the rewriting: where each begins, and behind the last how many there are. It is empty where
// none is cut.
type dataMoves []uint32

func (d dataMoves) moved(index uint32) uint32 {
	if len(d) == 0 {
		return index
	}
	if last := uint32(len(d) - 1); index > last { // what is not there stays so
		return index - last + d[last]
	}
	return d[index]
}

// dataSegment is one as it was read.
type dataSegment struct {
	head   []byte // flags, memory, and the offset
	data   []byte
	offset uint32
	parts  uint32
}

// dataSegment reads one, and decides into how many parts it is cut.
func (m *module) dataSegment(r *reader) (dataSegment, error) {
	from := r.at
	flags := r.u32()
	if flags > 2 && r.err == nil {
		return dataSegment{}, fmt.Errorf("a data segment with the flags %d is not of WebAssembly 2.0", flags)
	}
	memory := uint32(0)
	if flags == 2 {
		memory = r.u32()
	}
	s := dataSegment{parts: 1}
	constant := false
	if flags != 1 {
		at := r.at
		if _, err := m.expression(nil, r); err != nil {
			return s, err
		}
		s.offset, constant = constantOf(r.bytes[at:r.at])
	}
	s.head = r.bytes[from:r.at]
	s.data = r.take(r.u32())
	// What does not fit behind its offset is left as it is, to fail as it would.
	if constant && memory == 0 && uint64(s.offset)+uint64(len(s.data)) <= 1<<32 {
		s.parts = max(1, uint32((len(s.data)+segmentBytes-1)/segmentBytes))
	}
	return s, r.err
}

// constantOf returns the number that an expression is, spelled as it is here.
func constantOf(expression []byte) (n uint32, ok bool) {
	n = uint32((&reader{bytes: expression, at: 1}).s33())
	return n, bytes.Equal(expression, offsetAt(nil, n))
}

// offsetAt appends an expression that is a number.
func offsetAt(to []byte, n uint32) []byte {
	return append(appendS64(append(to, opI32Const), int64(int32(n))), opEnd)
}

func (m *module) readData(r *reader) error {
	n := r.count()
	moves := make(dataMoves, 0, n+1)
	var parts uint32
	for range n {
		s, err := m.dataSegment(r)
		if err != nil {
			return err
		}
		moves = append(moves, parts)
		parts += s.parts
	}
	if moves = append(moves, parts); parts > n {
		m.data = moves
	}
	return r.whole()
}

// writeData returns the section with all parts in it.
func (m *module) writeData(body []byte) ([]byte, error) {
	if len(m.data) == 0 {
		return body, nil
	}
	r := &reader{bytes: body}
	n := r.u32()
	out := appendU32(make([]byte, 0, len(body)+len(body)>>10), m.data.moved(n))
	for range n {
		s, err := m.dataSegment(r)
		if err != nil {
			return nil, err
		}
		if s.parts == 1 {
			out = appendSized(append(out, s.head...), s.data)
			continue
		}
		for at := 0; at < len(s.data); at += segmentBytes {
			out = offsetAt(append(out, 0), s.offset+uint32(at))
			out = appendSized(out, s.data[at:min(at+segmentBytes, len(s.data))])
		}
	}
	return out, nil
}
