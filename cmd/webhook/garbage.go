package main

import (
	"os"
	"runtime/debug"
)

// Garbage may be four times what is alive, as long as all of it is below garbageLimit: three quarters of the manifests' memory limit.
const (
	garbagePercent = 400
	garbageLimit   = 192 << 20
)

// collectSeldom has garbage wait. A review is all garbage once it is answered, and next to nothing else is alive: with Go's own
// 100% every few large pods would wait for a collection. Who sets Go's own variables for it knows better.
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(garbageLimit)
	}
}
