//go:build wasip1

// fetcher asks for URLs, and prints what each answers and how long that is. What its grant does not allow, it is told.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	wasmatrix "github.com/wasmatrix/wasmatrix/sdk/go"
	"github.com/wasmatrix/wasmatrix/sdk/go/wasmhttp"
)

func main() {
	web := wasmhttp.Client("http")
	for _, url := range os.Args[1:] {
		resp, err := web.Get(url)
		if errors.Is(err, wasmatrix.ErrPermissionDenied) {
			fmt.Println("denied:", err)
			continue
		} else if err != nil {
			fmt.Println("failed:", err)
			continue
		}
		size, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			fmt.Println("broke off:", err)
			continue
		}
		fmt.Println(url, resp.StatusCode, size, "bytes")
	}
}
