//go:build !linux

package runtime

// yieldCore does nothing: it is known of Linux only that it helps.
func yieldCore() {}
