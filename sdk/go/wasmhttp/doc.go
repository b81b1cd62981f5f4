// Package wasmhttp makes HTTP requests from a guest of wasmatrix, with net/http.
//
//	client := wasmhttp.Client("http")
//	resp, err := client.Get("https://example.com/")
//
// Errors that errors.Is compares with wasmatrix.ErrPermissionDenied and the others come through it. It is a package of
// its own since net/http doubles the size of a guest that does not need it.
package wasmhttp
