//go:build wasip1

// Uses most of the SDK, and prints what comes of it. Its like in other languages prints the same.
package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	wasmatrix "github.com/wasmatrix/wasmatrix/sdk/go"
	"github.com/wasmatrix/wasmatrix/sdk/go/wasmhttp"
)

func main() {
	kv := wasmatrix.KV("kv")
	_, err := kv.Get("b")
	fmt.Println("absent", errors.Is(err, wasmatrix.ErrNotFound))
	revision, _ := kv.Set("b", []byte("one"), wasmatrix.TTL(time.Minute), wasmatrix.IfAbsent())
	_, err = kv.Set("b", []byte("two"), wasmatrix.IfAbsent())
	fmt.Println("set", revision, errors.Is(err, wasmatrix.ErrConflict))
	kv.Set("b", []byte("three"), wasmatrix.IfRevision(revision))
	e, _ := kv.Read("b")
	fmt.Println("read", string(e.Value), e.Revision)
	sum, _ := kv.Increment("n", 41)
	there, _ := kv.Exists("n")
	kv.Set("a", nil)
	fmt.Println("sum", sum, there)
	fmt.Print("keys")
	for key := range kv.Keys("") {
		fmt.Print(" ", key)
	}
	gone, _ := kv.Delete("a")
	again, _ := kv.Delete("a")
	fmt.Println("\ndeleted", gone, again)
	_, err = kv.Bucket("other").Get("b")
	fmt.Println("denied", err)

	r, _ := http.NewRequest(http.MethodPost, os.Args[1]+"/echo", io.LimitReader(strings.NewReader(strings.Repeat("x", 1<<17)), 100_000))
	r.Header.Set("X-Ask", "why?")
	resp, err := wasmhttp.Client("http").Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println("posted", resp.StatusCode, resp.Header.Get("x-asked"), len(body))

	bus := wasmatrix.Messaging("messaging")
	_, err = bus.Request("s.x", nil, time.Second)
	fmt.Println("nobody", errors.Is(err, wasmatrix.ErrUnavailable))
	sub, _ := bus.SubscribeEach("s.*")
	_, err = sub.Receive(time.Millisecond)
	fmt.Println("nothing", errors.Is(err, wasmatrix.ErrTimeout))
	bus.Publish("s.x", []byte("hello"))
	m, _ := wasmatrix.Receive(time.Second)
	fmt.Println("received", m.Subject, string(m.Data), m.ExpectsReply, m.Subscription == sub)
	dropped, err := wasmatrix.Dropped()
	fmt.Println("dropped", dropped, err == nil, sub.Unsubscribe() == nil)
}
