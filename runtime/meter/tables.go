package meter

import (
	"errors"
	"fmt"
)

// maxTables is how many tables a module may have: as many as browsers allow (WebAssembly JavaScript Interface, section 9).
const maxTables = 100_000

// TooManyElementsError is a module whose tables, or element segments, begin with more than they may have.
type TooManyElementsError struct{ Elements, Most uint64 }

func (e *TooManyElementsError) Error() string {
	return fmt.Sprintf("its tables begin with %d elements, and %d are allowed", e.Elements, e.Most)
}

// BoundTables returns a module whose tables never have more than so many elements, together: beyond that table.grow answers -1, as the
// specification has it. What they could grow by is shared equally among those that can grow. Nothing else is changed, so it does for
// modules that can't be metered, too.
//
// Elements are memory of the host's, eight bytes each, that no limit of linear memory bounds.
func BoundTables(wasm []byte, most uint32) ([]byte, error) {
	if len(wasm) < len(header) {
		return nil, errShort
	}
	out, bounded := wasm, false
	for r := (&reader{bytes: wasm, at: len(header)}); r.more(); {
		began := r.at
		id := r.byte()
		body := r.sized()
		err := r.err
		switch {
		case err != nil:
		case id == secTable && bounded:
			err = errors.New("there are two of it")
		case id == secTable:
			var tables []byte
			tables, err = boundTables(body, most)
			out = appendSection(append(make([]byte, 0, len(wasm)+len(tables)), wasm[:began]...), secTable, tables)
			out, bounded = append(out, wasm[r.at:]...), true
		case id == secElement:
			err = boundSegments(body, most)
		}
		if err != nil {
			return nil, fmt.Errorf("section %d: %w", id, err)
		}
	}
	return out, nil
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
			r.byte()
		}
		count := r.count()
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
