package web

import (
	"net/http"
	"strings"
	"testing"

	"github.com/wasmatrix/wasmatrix/api"
)

func TestOutputIsTextAsItWasWritten(t *testing.T) {
	c := someCluster()
	for _, line := range []string{"one", "<b>two</b>", "three \xff"} {
		c.write("i1", "stdout", []byte(line))
	}
	base := serve(t, c)
	resp, body := get(t, base+"/v1/instances/i1/logs")
	if body != "one\n<b>two</b>\nthree \xff\n" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%q %v", body, resp.Header)
	}
	if _, body := get(t, base+"/v1/instances/i1/logs?tail=1"); body != "three \xff\n" {
		t.Errorf("the last line is %q", body)
	}
	if resp, body := get(t, base+"/v1/instances/i2/logs"); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("of one that wrote nothing: %d %q", resp.StatusCode, body)
	}
	for path, code := range map[string]string{
		"/v1/instances/none/logs":           "INSTANCE_NOT_FOUND",
		"/v1/instances/none/logs?follow":    "INSTANCE_NOT_FOUND",
		"/v1/instances/i1/logs?tail=many":   "INVALID_REQUEST",
		"/v1/instances/i1/logs?follow=some": "INVALID_REQUEST",
	} {
		if _, body := get(t, base+path); decode[api.Error](t, body).ErrorCode != code {
			t.Errorf("%s: %s", path, body)
		}
	}
}

func TestOutputIsFollowedAsEvents(t *testing.T) {
	c := someCluster()
	c.write("i1", "stdout", []byte("before\nit"))
	f := followAt(t, serve(t, c)+"/v1/instances/i1/logs?follow", "")
	c.write("i1", "stderr", []byte("event: forged"))
	for _, want := range []api.LogEntry{{Stream: "stdout", Line: "before\nit", Seq: 1}, {Stream: "stderr", Line: "event: forged", Seq: 2}} {
		one, ok := f.next()
		if !ok || one.kind != "line" {
			t.Fatalf("%+v, %v", one, f.lines.Err())
		}
		if got := decode[api.LogEntry](t, one.data); got.Stream != want.Stream || got.Line != want.Line || got.Seq != want.Seq {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	c.setDown(errDown)
	if one, ok := f.next(); !ok || one.kind != "error" || !strings.Contains(one.data, "NO_LEADER") {
		t.Errorf("at the end: %+v, %v", one, ok)
	}
}
