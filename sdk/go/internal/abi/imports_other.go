//go:build !wasip1

package abi

import "unsafe"

// Elsewhere there is nothing to call, and every call says so.

const elsewhere = "this program does not run in wasmatrix: build it with GOOS=wasip1 GOARCH=wasm"

// unavailable is what each call returns: ErrUnavailable's status.
func unavailable() int32 { return int32(ErrUnavailable.Status) }

func ResultLen() int32 { return int32(len(elsewhere)) }

func ResultRead(to unsafe.Pointer, from, size uint32) int32 {
	return int32(copy(unsafe.Slice((*byte)(to), size), elsewhere[from:]))
}

func ResultNumber() int64 { return 0 }

func KvGet(_, _, _ string) int32 { return unavailable() }

func KvExists(_, _, _ string) int32 { return unavailable() }

func KvSet(_, _, _ string, _ unsafe.Pointer, _ uint32, _, _ int64) int32 { return unavailable() }

func KvDelete(_, _, _ string, _ int64) int32 { return unavailable() }

func KvIncrement(_, _, _ string, _ int64) int32 { return unavailable() }

func KvList(_, _, _, _ string, _ int32) int32 { return unavailable() }

func HttpOpen(_, _, _ string, _ unsafe.Pointer, _ uint32, _, _ int64) int32 { return unavailable() }

func HttpWrite(_ int32, _ unsafe.Pointer, _ uint32) int32 { return unavailable() }

func HttpSend(_ int32) int32 { return unavailable() }

func HttpRead(_ int32, _ unsafe.Pointer, _ uint32) int32 { return unavailable() }

func HttpClose(_ int32) int32 { return 0 }

func MsgPublish(_, _ string, _ unsafe.Pointer, _ uint32) int32 { return unavailable() }

func MsgRequest(_, _ string, _ unsafe.Pointer, _ uint32, _ int64) int32 { return unavailable() }

func MsgReply(_ unsafe.Pointer, _ uint32) int32 { return unavailable() }

func MsgSubscribe(_, _ string, _ uint32) int32 { return unavailable() }

func MsgUnsubscribe(_ uint32) int32 { return unavailable() }

func MsgReceive(_ uint32, _ int64) int32 { return unavailable() }

func MsgDropped() int32 { return unavailable() }
