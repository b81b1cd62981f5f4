//go:build !unix

package main

import "context"

// withMemory leaves guests the memory that wazero gives them.
func withMemory(ctx context.Context) context.Context { return ctx }
