//go:build !wasip1

package abi

import "unsafe"

// Elsewhere there is nothing to call, and every call says so.

const elsewhere = "this program does not run in wasmatrix: build it with GOOS=wasip1 GOARCH=wasm"

// unavailable is what each call returns: ErrUnavailable's status.
func unavailable() int32 { return int32(ErrUnavailable.Status) }

// ResultLen is result_len.
func ResultLen() int32 { return int32(len(elsewhere)) }

// ResultRead is result_read.
func ResultRead(to unsafe.Pointer, from, size uint32) int32 {
	return int32(copy(unsafe.Slice((*byte)(to), size), elsewhere[from:])) //nolint:gosec // what Result passes is its own buffer
}

// ResultNumber is result_number.
func ResultNumber() int64 { return 0 }

// KVGet is kv_get.
func KVGet(_, _, _ string) int32 { return unavailable() }

// KVExists is kv_exists.
func KVExists(_, _, _ string) int32 { return unavailable() }

// KVSet is kv_set.
func KVSet(_, _, _ string, _ unsafe.Pointer, _ uint32, _, _ int64) int32 { return unavailable() }

// KVDelete is kv_delete.
func KVDelete(_, _, _ string, _ int64) int32 { return unavailable() }

// KVIncrement is kv_increment.
func KVIncrement(_, _, _ string, _ int64) int32 { return unavailable() }

// KVList is kv_list.
func KVList(_, _, _, _ string, _ int32) int32 { return unavailable() }

// HTTPOpen is http_open.
func HTTPOpen(_, _, _ string, _ unsafe.Pointer, _ uint32, _, _ int64) int32 { return unavailable() }

// HTTPWrite is http_write.
func HTTPWrite(_ int32, _ unsafe.Pointer, _ uint32) int32 { return unavailable() }

// HTTPSend is http_send.
func HTTPSend(_ int32) int32 { return unavailable() }

// HTTPRead is http_read.
func HTTPRead(_ int32, _ unsafe.Pointer, _ uint32) int32 { return unavailable() }

// HTTPClose is http_close.
func HTTPClose(_ int32) int32 { return 0 }

// MsgPublish is msg_publish.
func MsgPublish(_, _ string, _ unsafe.Pointer, _ uint32) int32 { return unavailable() }

// MsgRequest is msg_request.
func MsgRequest(_, _ string, _ unsafe.Pointer, _ uint32, _ int64) int32 { return unavailable() }

// MsgReply is msg_reply.
func MsgReply(_ unsafe.Pointer, _ uint32) int32 { return unavailable() }

// MsgSubscribe is msg_subscribe.
func MsgSubscribe(_, _ string, _ uint32) int32 { return unavailable() }

// MsgUnsubscribe is msg_unsubscribe.
func MsgUnsubscribe(_ uint32) int32 { return unavailable() }

// MsgReceive is msg_receive.
func MsgReceive(_ uint32, _ int64) int32 { return unavailable() }

// MsgDropped is msg_dropped.
func MsgDropped() int32 { return unavailable() }
