package programs

import "syscall"

// dieWithParent lets a program die with the test, however that ends: a test that runs into its timeout cleans nothing up.
// Linux means the thread that started the process.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
