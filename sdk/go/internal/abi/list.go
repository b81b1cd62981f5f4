package abi

import (
	"encoding/binary"
	"time"
)

// Items reads a list: each item is its length in 4 bytes, little-endian, and its bytes.
func Items(b []byte) (all [][]byte) {
	for len(b) >= 4 {
		end := 4 + int(binary.LittleEndian.Uint32(b))
		all = append(all, b[4:end:end])
		b = b[end:]
	}
	return all
}

// AppendItem adds an item to a list.
func AppendItem(b []byte, item string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(item)))
	return append(b, item...)
}

// Milliseconds rounds up, so that something short is not for ever.
func Milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
