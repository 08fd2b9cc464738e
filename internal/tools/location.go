package tools

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// cacheVariable names the environment variable that moves the cache.
const cacheVariable = "AIRFLOW_REQUEUE_CACHE"

// checkout finds the root of the checkout, upwards from the working directory. A nested module's files
// cannot be embedded (go:embed stops at its go.mod) and a path recorded by the compiler is gone with
// -trimpath, but `go test` runs in the package's folder and `go run` where its user is: in the checkout.
func checkout() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the checkout: %w", err)
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if declaresProject(filepath.Join(dir, "go.mod")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding the checkout: no go.mod of the project in %s or above it", wd)
		}
	}
}

func declaresProject(goMod string) bool {
	content, err := os.ReadFile(goMod)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(content)) {
		if strings.TrimSpace(line) == "module github.com/airflow-requeue/airflow-requeue" {
			return true
		}
	}
	return false
}

func cacheDir() (string, error) {
	if dir := os.Getenv(cacheVariable); dir != "" {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("finding the cache %s: %w", dir, err)
		}
		return abs, nil
	}
	if dir, err := os.UserCacheDir(); err == nil {
		return filepath.Join(dir, "airflow-requeue"), nil
	}
	return sharedTempCache()
}

// sharedTempCache is the cache of a user without a home, as in a bare container. Anybody can make a
// folder under a name known beforehand, and what is in the cache is executed: it must be our own.
func sharedTempCache() (string, error) {
	dir := filepath.Join(os.TempDir(), "airflow-requeue-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s can be written by others: set %s to a folder of your own", dir, cacheVariable)
	}
	return dir, nil
}
