package meter

import (
	"encoding/binary"
	"errors"
)

// errShort is bytes that end too early.
var errShort = errors.New("it ends too early")

// errLong is a number that is longer than its kind may be.
var errLong = errors.New("a number is too long")

// reader reads a module's bytes. After the first error it reads zeros.
type reader struct {
	bytes []byte
	at    int
	err   error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.at = len(r.bytes)
}

func (r *reader) more() bool { return r.at < len(r.bytes) }

func (r *reader) byte() byte {
	if !r.more() {
		r.fail(errShort)
		return 0
	}
	b := r.bytes[r.at]
	r.at++
	return b
}

// take returns the next n bytes.
func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.bytes)-r.at) {
		r.fail(errShort)
		return nil
	}
	b := r.bytes[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *reader) skip(n uint32) { r.take(n) }

// u32 reads an unsigned LEB128 number of 32 bits.
func (r *reader) u32() uint32 {
	var n uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if n > 1<<32-1 {
				r.fail(errLong)
			}
			return uint32(n)
		}
	}
	r.fail(errLong)
	return 0
}

// skipLEB passes a LEB128 number of at most so many bytes.
func (r *reader) skipLEB(most int) {
	for range most {
		if r.byte() < 0x80 {
			return
		}
	}
	r.fail(errLong)
}

// s33 reads a signed LEB128 number of 33 bits.
func (r *reader) s33() int64 {
	var n int64
	for shift := 0; shift < 35; shift += 7 {
		b := r.byte()
		n |= int64(b&0x7f) << shift
		if b < 0x80 {
			if b&0x40 != 0 {
				n |= -1 << (shift + 7)
			}
			return n
		}
	}
	r.fail(errLong)
	return 0
}

// sized reads a length and that many bytes, as a reader of their own.
func (r *reader) sized() *reader {
	b := r.take(r.u32())
	return &reader{bytes: b, err: r.err}
}

func appendU32(to []byte, n uint32) []byte { return binary.AppendUvarint(to, uint64(n)) }

// appendS64 appends a signed LEB128 number.
func appendS64(to []byte, n int64) []byte {
	for {
		b := byte(n & 0x7f)
		n >>= 7
		if n == 0 && b&0x40 == 0 || n == -1 && b&0x40 != 0 {
			return append(to, b)
		}
		to = append(to, b|0x80)
	}
}

// appendSized appends bytes after their length.
func appendSized(to, b []byte) []byte {
	return append(appendU32(to, uint32(len(b))), b...)
}
