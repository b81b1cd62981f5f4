//go:build !unix

package node

// mayWrite is not known here before it is tried.
func mayWrite(string) error { return nil }
