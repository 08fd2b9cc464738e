// Package keyfile reads signing keys from a directory, as a mounted Secret gives them, and follows their rotation.
package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// currentFile holds the id of the key that signs. Every other file is a key: its name the id, its content the secret.
const currentFile = "current"

// dataLink is the symbolic link by which the kubelet swaps all files of a mounted Secret at once.
const dataLink = "..data"

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
	keys := requeue.Keys{Secrets: map[string][]byte{}}
	for _, entry := range entries {
		content, ok, err := read(resolved, entry.Name())
		switch {
		case err != nil:
			return requeue.Keys{}, err
		case !ok:
		case entry.Name() == currentFile:
			keys.Current = strings.TrimSpace(string(content))
		default:
			keys.Secrets[entry.Name()] = content
		}
	}
	// Validate would quote the id of a current key that is not there; here it may be anything, a secret too.
	if _, ok := keys.Secrets[keys.Current]; !ok {
		return requeue.Keys{}, fmt.Errorf("file %s must hold the name of another file: that of the key that signs", currentFile)
	}
	return keys, keys.Validate()
}

// read returns a regular file's content without a newline at its end.
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
	return bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r")), err == nil, err
}
