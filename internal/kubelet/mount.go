package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
)

// Mount makes dir what the kubelet makes of a Secret, or changes it as the kubelet does: new files in a new directory, swapped in
// by renaming a symbolic link; then the old directory goes, and the links to files that are no more.
func Mount(dir, generation string, files map[string][]byte) error {
	data, fresh := filepath.Join(dir, "..data"), filepath.Join(dir, "..data_tmp")
	old, _ := os.Readlink(data) // none at first
	if err := os.MkdirAll(filepath.Join(dir, generation), 0o700); err != nil {
		return fmt.Errorf("mounting a Secret: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, generation, name), content, 0o600); err != nil {
			return fmt.Errorf("mounting a Secret: %w", err)
		}
	}
	if err := os.Symlink(generation, fresh); err != nil {
		return fmt.Errorf("mounting a Secret: %w", err)
	}
	if err := os.Rename(fresh, data); err != nil {
		return fmt.Errorf("mounting a Secret: %w", err)
	}
	for name := range files {
		link := filepath.Join(dir, name)
		if _, err := os.Lstat(link); err == nil {
			continue
		}
		if err := os.Symlink(filepath.Join("..data", name), link); err != nil {
			return fmt.Errorf("mounting a Secret: %w", err)
		}
	}
	if old == "" {
		return nil
	}
	return tidy(dir, old, files)
}

func tidy(dir, old string, files map[string][]byte) error {
	before, err := os.ReadDir(filepath.Join(dir, old))
	if err != nil {
		return fmt.Errorf("mounting a Secret: %w", err)
	}
	for _, entry := range before {
		if _, ok := files[entry.Name()]; ok {
			continue
		}
		if err := os.Remove(filepath.Join(dir, entry.Name())); err != nil {
			return fmt.Errorf("mounting a Secret: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
		return fmt.Errorf("mounting a Secret: %w", err)
	}
	return nil
}
