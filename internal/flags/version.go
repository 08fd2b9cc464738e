package flags

import (
	"cmp"
	"runtime/debug"
)

// version is stamped by `make build` and `make images`, as git describe says it.
var version string

// Version is that of the running program: the stamped one, or what go knows of a program that was built otherwise.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return cmp.Or(version, info.Main.Version, "unknown")
	}
	return cmp.Or(version, "unknown")
}
