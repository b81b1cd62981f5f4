//go:build !linux

package mirror

import "syscall"

func endsWithParent() *syscall.SysProcAttr { return nil }
