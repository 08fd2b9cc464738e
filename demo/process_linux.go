package main

import "syscall"

// dieWithParent lets a process die with the demo, even one that is killed and cleans up nothing. Linux means the thread
// that started the process.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
