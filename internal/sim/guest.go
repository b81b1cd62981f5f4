package sim

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/wasmatrix/wasmatrix/modulestore"
)

// guest is a module that sleeps for ever, an hour at a time: so small that it is cheaper to write it down than to have
// it compiled.
func guest() []byte {
	section := func(id byte, content ...byte) []byte { return append([]byte{id, byte(len(content))}, content...) }
	name := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	subscription := make([]byte, 48) // to the clock (tag 0)
	binary.LittleEndian.PutUint32(subscription[16:], 1)
	binary.LittleEndian.PutUint64(subscription[24:], 3600e9)
	body := []byte{
		0,          // no locals
		0x03, 0x40, // loop
		0x41, 0, // the subscription
		0x41, 0x80, 1, // where events go: 128
		0x41, 1, // one of them
		0x41, 0xC0, 1, // where their number goes: 192
		0x10, 0, // poll_oneoff
		0x1A,       // drop
		0x0C, 0x00, // again
		0x0B, 0x0B,
	}
	return slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 2, 0x60, 4, 0x7F, 0x7F, 0x7F, 0x7F, 1, 0x7F, 0x60, 0, 0),
		section(2, slices.Concat([]byte{1}, name("wasi_snapshot_preview1"), name("poll_oneoff"), []byte{0, 0})...),
		section(3, 1, 1),
		section(5, 1, 0, 1),
		section(7, slices.Concat([]byte{2}, name("memory"), []byte{2, 0}, name("_start"), []byte{0, 1})...),
		section(10, slices.Concat([]byte{1, byte(len(body))}, body)...),
		section(11, slices.Concat([]byte{1, 0, 0x41, 0, 0x0B, byte(len(subscription))}, subscription)...),
	)
}

// storeGuest opens a store that has the guest, and returns its hash.
func storeGuest(dir string) (*modulestore.Store, string, error) {
	store, err := modulestore.Open(dir)
	if err != nil {
		return nil, "", err
	}
	code := guest()
	sum := sha256.Sum256(code)
	hash, err := modulestore.ParseHash("sha256:" + hex.EncodeToString(sum[:]))
	if err != nil {
		return nil, "", err
	}
	in, err := store.Receive(hash, int64(len(code)))
	if err != nil {
		return nil, "", err
	}
	if _, err := in.Write(code); err != nil {
		return nil, "", fmt.Errorf("store the guest: %w", err)
	}
	return store, string(hash), in.Commit()
}
