package meter

import (
	"strings"
	"unicode/utf8"
)

// The parts of a name section that go by functions.
const (
	nameOfModule     = 0
	namesOfFunctions = 1
	namesOfLocals    = 2
	namesOfLabels    = 3
)

// custom returns what becomes of a custom section, and whether it is kept. What says where things are in the code is not: it would be
// wrong.
func (m *module) custom(body []byte) (out []byte, keep bool) {
	r := &reader{bytes: body}
	name := string(r.take(r.u32()))
	switch {
	case r.err != nil: // whoever compiles it says so
		return body, true
	case strings.HasPrefix(name, ".debug_") || strings.HasPrefix(name, "reloc.") || name == "linking" || strings.HasPrefix(name, "metadata.code."):
		return nil, false
	case name != "name":
		return body, true
	}
	out = appendSized(nil, []byte(name))
	for r.more() {
		id := r.byte()
		part := r.sized()
		if r.err != nil {
			return body, true // nobody could read it before
		}
		moved, ok := part.bytes, true
		switch id {
		case namesOfLabels: // there are more, in between
			continue
		case namesOfFunctions:
			moved, ok = m.namesByFunction(part, (*reader).skipName)
		case namesOfLocals:
			moved, ok = m.namesByFunction(part, (*reader).skipNames)
		}
		if !ok {
			return body, true
		}
		out = appendSized(append(out, id), moved)
	}
	return out, true
}

// namesByFunction moves the functions of a map from those to something.
func (m *module) namesByFunction(r *reader, skip func(*reader)) (out []byte, ok bool) {
	n := r.count()
	out = appendU32(nil, n)
	for range n {
		out = appendU32(out, m.moved(r.u32()))
		from := r.at
		skip(r)
		if r.err != nil {
			return nil, false
		}
		out = append(out, r.bytes[from:r.at]...)
	}
	return out, r.whole() == nil
}

// readable says whether all names in the section of that name are there, and are text.
func readable(body []byte) bool {
	r := &reader{bytes: body}
	r.skipName()
	for r.more() {
		id := r.byte()
		part := r.sized()
		var err error
		switch id {
		case nameOfModule:
			part.text()
			err = part.whole()
		case namesOfFunctions:
			for range part.count() {
				part.u32()
				part.text()
			}
			err = part.whole()
		case namesOfLocals, namesOfLabels:
			for range part.count() {
				part.u32()
				for range part.count() {
					part.u32()
					part.text()
				}
			}
			err = part.whole()
		}
		if err != nil {
			return false
		}
	}
	return r.err == nil
}

// text reads a name, which has to be text.
func (r *reader) text() string {
	name := r.take(r.u32())
	if !utf8.Valid(name) {
		r.fail(errText)
	}
	return string(name)
}

func (r *reader) skipName() { r.skip(r.u32()) }

func (r *reader) skipNames() {
	for range r.count() {
		r.u32()
		r.skipName()
	}
}
