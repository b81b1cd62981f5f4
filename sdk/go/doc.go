// Package wasmatrix is what a guest in Go may ask of the wasmatrix that runs it: keys and values, and
// messages. HTTP is in package wasmhttp beside it.
//
//	kv := wasmatrix.KV("kv")
//	n, err := kv.Increment("visits", 1)
//
//	jobs, err := wasmatrix.Messaging("messaging").Subscribe("jobs.*")
//	for job, err := range jobs.Messages() { … }
//
// Each is reached by the id of a capability, and only as far as this instance is granted it: wasmatrix run
// --capability kv=kv:read,kv:write guest.wasm. A call that is refused or fails returns an [*Error], which errors.Is
// compares with [ErrPermissionDenied] and the others. Grants may change while the guest runs.
//
// Guests are built by the stock toolchain with GOOS=wasip1 GOARCH=wasm. They have one thread, which a call holds until
// it is answered: other goroutines wait meanwhile. On other systems everything compiles, and every call
// fails with [ErrUnavailable], so that code around it can be tested there.
//
// It imports nothing but the standard library, and is a part of wasmatrix's own module, so that one version
// names both: a guest that requires it builds none of the server and none of its dependencies.
package wasmatrix
