package child

import "syscall"

// dieWithParent has the kernel kill the program when its parent is gone. Linux means the thread that started it.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
