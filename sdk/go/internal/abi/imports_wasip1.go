package abi

import "unsafe"

// The imports of docs/guest-abi.md. A string is passed as a pointer and a length.

//go:wasmimport wasmatrix result_len
func ResultLen() int32

//go:wasmimport wasmatrix result_read
func ResultRead(to unsafe.Pointer, from, size uint32) int32

//go:wasmimport wasmatrix result_number
func ResultNumber() int64

//go:wasmimport wasmatrix kv_get
func KVGet(capability, bucket, key string) int32

//go:wasmimport wasmatrix kv_exists
func KVExists(capability, bucket, key string) int32

//go:wasmimport wasmatrix kv_set
func KVSet(capability, bucket, key string, value unsafe.Pointer, size uint32, ttl, ifRevision int64) int32

//go:wasmimport wasmatrix kv_delete
func KVDelete(capability, bucket, key string, ifRevision int64) int32

//go:wasmimport wasmatrix kv_increment
func KVIncrement(capability, bucket, key string, by int64) int32

//go:wasmimport wasmatrix kv_list
func KVList(capability, bucket, prefix, after string, limit int32) int32

//go:wasmimport wasmatrix http_open
func HTTPOpen(capability, method, url string, header unsafe.Pointer, size uint32, length, limit int64) int32

//go:wasmimport wasmatrix http_write
func HTTPWrite(request int32, from unsafe.Pointer, size uint32) int32

//go:wasmimport wasmatrix http_send
func HTTPSend(request int32) int32

//go:wasmimport wasmatrix http_read
func HTTPRead(request int32, to unsafe.Pointer, size uint32) int32

//go:wasmimport wasmatrix http_close
func HTTPClose(request int32) int32

//go:wasmimport wasmatrix msg_publish
func MsgPublish(capability, subject string, message unsafe.Pointer, size uint32) int32

//go:wasmimport wasmatrix msg_request
func MsgRequest(capability, subject string, message unsafe.Pointer, size uint32, timeout int64) int32

//go:wasmimport wasmatrix msg_reply
func MsgReply(answer unsafe.Pointer, size uint32) int32

//go:wasmimport wasmatrix msg_subscribe
func MsgSubscribe(capability, subject string, flags uint32) int32

//go:wasmimport wasmatrix msg_unsubscribe
func MsgUnsubscribe(subscription uint32) int32

//go:wasmimport wasmatrix msg_receive
func MsgReceive(subscription uint32, timeout int64) int32

//go:wasmimport wasmatrix msg_dropped
func MsgDropped() int32
