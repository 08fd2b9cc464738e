package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// launcher starts the server of its own name so that it dies with this process, however that dies: a
// test that panics, times out or is killed runs no cleanup. envtest starts servers itself and leaves no
// hand on their processes, but it does call a path of our choosing. The lifeline is a FIFO that only
// this process has open for writing: when the watchdog's read ends, we are gone. What the watchdog prints
// goes nowhere, or envtest would wait for the end of it. It is in the server's process group, which
// envtest signals, so an orderly stop ends it too. envtest also asks for --help, which ends by itself.
const launcher = `#!/bin/sh
dir=${0%/*}
name=${0##*/}
[ "$1" = --help ] && exec "$dir/bin/$name" "$@"
echo $$ >"$dir/$name.pid"
exec 3<"$dir/lifeline"
(
	read -r _ <&3
	kill -9 $$
	rm -rf "$dir"
) >/dev/null 2>&1 &
exec "$dir/bin/$name" "$@" 3<&-
`

// runtimeDir is the folder of one control plane: launchers, links to the binaries, data, certificates.
type runtimeDir struct {
	path string
	cut  func() // lets go of the lifeline: no server outlives this
}

func newRuntimeDir(assets string) (_ *runtimeDir, err error) {
	path, err := os.MkdirTemp("", "airflow-requeue-controlplane-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the servers: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(path)
		}
	}()
	for _, dir := range []string{"bin", "certificates"} {
		if err := os.Mkdir(filepath.Join(path, dir), 0o700); err != nil {
			return nil, fmt.Errorf("making a folder for the servers: %w", err)
		}
	}
	for _, name := range servers().Binaries {
		if err := os.Symlink(filepath.Join(assets, name), filepath.Join(path, "bin", name)); err != nil {
			return nil, fmt.Errorf("linking %s: %w", name, err)
		}
		if err := writeExecutable(filepath.Join(path, name), launcher); err != nil {
			return nil, fmt.Errorf("writing the launcher of %s: %w", name, err)
		}
	}
	lifeline, err := openLifeline(filepath.Join(path, "lifeline"))
	if err != nil {
		return nil, err
	}
	cut := sync.OnceFunc(func() {
		os.Remove(lifeline.Name()) // first: a launcher that comes later is to fail, not to wait for a writer
		lifeline.Close()
	})
	return &runtimeDir{path: path, cut: cut}, nil
}

// openLifeline opens the FIFO for reading as well: opened for writing alone it would wait for a reader.
func openLifeline(path string) (*os.File, error) {
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("making the lifeline: %w", err)
	}
	lifeline, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the lifeline: %w", err)
	}
	return lifeline, nil
}

// writeExecutable keeps this process from forking while the file is open for writing: a child would have
// it open until its own exec, and the file could not be run meanwhile ("text file busy").
func writeExecutable(path, content string) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(path, []byte(content), 0o700)
}

func (d *runtimeDir) launcher(name string) string {
	return filepath.Join(d.path, name)
}

// remove kills a server that still runs, and removes the folder.
func (d *runtimeDir) remove() error {
	d.cut()
	if err := os.RemoveAll(d.path); err != nil {
		return fmt.Errorf("removing the servers' folder: %w", err)
	}
	return nil
}
