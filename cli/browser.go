package cli

import (
	"os"
	"os/exec"
	"runtime"
)

// hasDisplay says whether there is a screen to open a page on.
func hasDisplay() bool {
	return runtime.GOOS == "darwin" || os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
}

// openBrowser shows a page in the user's browser, which goes on when this process ends.
func openBrowser(page string) error {
	opener := "xdg-open"
	if runtime.GOOS == "darwin" {
		opener = "open"
	}
	cmd := exec.Command(opener, page) //nolint:gosec // one of these two, and the page is ours
	cmd.SysProcAttr = ofItsOwn()      // Ctrl-C is for us
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // it may be the browser itself
	return nil
}
