package mirror

import "syscall"

// endsWithParent has a process end with the test that started it, however that ends.
func endsWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
