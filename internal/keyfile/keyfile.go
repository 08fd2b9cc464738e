// Package keyfile reads signing keys from a directory, as a mounted Secret gives them, and follows their rotation.
package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// dataLink is the symbolic link by which the kubelet swaps all files of a mounted Secret at once.
const dataLink = "..data"

// errNone is that of a directory without files: a Secret whose keys are still to be made, or to be mounted.
var errNone = errors.New("no signing keys are there yet")

// Load reads and validates the keys. Errors name files and quote nothing that is in them.
func Load(dir string) (requeue.Keys, error) {
	keys, err := load(dir)
	if err != nil {
		return requeue.Keys{}, fmt.Errorf("loading signing keys from %s: %w", dir, err)
	}
	return keys, nil
}

func load(dir string) (requeue.Keys, error) {
	// Through the link once, so that all files are of one generation.
	resolved, err := filepath.EvalSymlinks(filepath.Join(dir, dataLink))
	if errors.Is(err, fs.ErrNotExist) {
		resolved, err = dir, nil
	}
	if err != nil {
		return requeue.Keys{}, err
	}
	entries, err := os.ReadDir(resolved)
	if err != nil {
		return requeue.Keys{}, err
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		content, ok, err := read(resolved, entry.Name())
		if err != nil {
			return requeue.Keys{}, err
		}
		if ok {
			files[entry.Name()] = content
		}
	}
	if len(files) == 0 {
		return requeue.Keys{}, errNone
	}
	return requeue.ParseKeys(files)
}

// read returns a regular file's content.
func read(dir, name string) ([]byte, bool, error) {
	if strings.HasPrefix(name, "..") {
		return nil, false, nil
	}
	path := filepath.Join(dir, name)
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, false, err
	}
	content, err := os.ReadFile(path)
	return content, err == nil, err
}
