// Package child runs programs that die with the process that started them, however that ends: a test that runs into its
// timeout and a demo that is killed clean nothing up.
package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts a program and returns a channel that is closed when it has ended and cmd.ProcessState is known.
func Start(cmd *exec.Cmd) (<-chan struct{}, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr)
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the program dies with this thread, see dieWithParent
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // ProcessState says it all
		}
		close(ended)
	}()
	return ended, <-started
}
