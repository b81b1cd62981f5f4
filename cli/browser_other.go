//go:build !unix

package cli

import "syscall"

func ofItsOwn() *syscall.SysProcAttr { return nil }
