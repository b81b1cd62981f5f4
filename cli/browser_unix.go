//go:build unix

package cli

import "syscall"

// ofItsOwn has a process not be sent what the terminal sends to ours.
func ofItsOwn() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
