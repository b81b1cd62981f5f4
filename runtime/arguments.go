package runtime

import (
	"encoding/binary"
	"math"
	"time"
	"unicode/utf8"

	"github.com/wasmatrix/wasmatrix/capability"
)

// Limits of arguments, beside those of package capability. They bound what is copied before anyone looks at it.
const (
	maxText   = 64 << 10  // bytes of one name, key, subject or URL
	maxHeader = 256 << 10 // bytes of a request's header
)

const addressSpace = 1 << 32 // bytes that a guest of 32 bits can name

func invalidArgument(format string, args ...any) error {
	return capability.Errorf(capability.InvalidRequest, format, args...)
}

// take returns the next argument.
func (h *host) take() uint32 { return uint32(h.takeLong()) }

func (h *host) takeLong() int64 {
	v := h.args[0]
	h.args = h.args[1:]
	return int64(v)
}

// view returns a part of the guest's memory. It is good until the call ends: the guest may then change it.
func (h *host) view(what string, at, size uint32) ([]byte, error) {
	if size == 0 { // whatever the pointer is
		return nil, nil
	}
	// wazero can't name the end of the address space itself.
	if h.memory != nil && uint64(at)+uint64(size) < addressSpace {
		if b, ok := h.memory.Read(at, size); ok {
			return b, nil
		}
	}
	return nil, invalidArgument("%s: %d bytes at %#x are not in the guest's memory", what, size, at)
}

// bytes takes a pointer and a length, of which the guest may name at most so many bytes, and returns a view. What is wrong
// with it stays in h.refused, and it returns nil then, so that all arguments can be taken before that is asked.
func (h *host) bytes(what string, most int) []byte {
	at, size := h.take(), h.take()
	if h.refused != nil {
		return nil
	}
	b, err := h.view(what, at, size)
	switch {
	case err != nil:
		h.refused = err
	case len(b) > most:
		h.refused, b = capability.Errorf(capability.Exhausted, "%s: %d bytes, at most %d", what, len(b), most), nil
	}
	return b
}

// text takes a string, which is copied.
func (h *host) text(what string) string {
	b := h.bytes(what, maxText)
	if !utf8.Valid(b) {
		h.refused = invalidArgument("%s is not UTF-8", what)
		return ""
	}
	return string(b)
}

// again takes a string that is likely to be the one in last, which it then returns instead of a copy.
func (h *host) again(what string, last *string) string {
	b := h.bytes(what, maxText)
	if string(b) == *last { // compares without a copy
		return *last
	}
	if !utf8.Valid(b) {
		h.refused = invalidArgument("%s is not UTF-8", what)
		return ""
	}
	*last = string(b)
	return *last
}

// capability takes the id of a capability.
func (h *host) takeCapability() string { return h.again("the capability's id", &h.capabilityID) }

// takeBucket takes the name of a bucket, empty for the instance's own.
func (h *host) takeBucket() string { return h.again("the bucket", &h.bucket) }

// takeRevision takes a condition: a revision, 0 for "does not exist", -1 for none.
func (h *host) takeRevision() *uint64 {
	n := h.takeLong()
	switch {
	case n == -1:
		return nil
	case n < 0:
		h.refuse(invalidArgument("revision %d: want -1 for any, 0 for none, or one that was read", n))
		return nil
	}
	revision := uint64(n)
	return &revision
}

// takeTime takes milliseconds.
func (h *host) takeTime() time.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	return time.Duration(max(-most, min(most, h.takeLong()))) * time.Millisecond
}

// refuse notes what is wrong with the arguments, unless something else is.
func (h *host) refuse(err error) {
	if h.refused == nil {
		h.refused = err
	}
}

// list makes a list as guests read it: each item is its length in 4 bytes, little-endian, and its bytes.
func list(items ...string) []byte {
	size := 0
	for _, item := range items {
		size += itemSize(item)
	}
	b := make([]byte, 0, size)
	for _, item := range items {
		b = appendItem(b, item)
	}
	return b
}

func itemSize[T string | []byte](item T) int { return 4 + len(item) }

func appendItem[T string | []byte](b []byte, item T) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(item)))
	return append(b, item...)
}

// readList reads what list makes, and says whether it is one.
func readList(b []byte) (items []string, ok bool) {
	for len(b) > 0 {
		if len(b) < itemSize("") {
			return nil, false
		}
		size := binary.LittleEndian.Uint32(b)
		if b = b[4:]; uint64(size) > uint64(len(b)) {
			return nil, false
		}
		items = append(items, string(b[:size]))
		b = b[size:]
	}
	return items, true
}
