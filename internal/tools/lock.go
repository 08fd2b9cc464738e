package tools

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

const lockInterval = 200 * time.Millisecond

// lock takes the lock file at path. It is held until the file is closed or its process is gone: the
// kernel lets go of a killed builder's. While another has it, waiting is told once who that is.
func lock(ctx context.Context, path string, waiting func(holder string)) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := flock(ctx, file, waiting); err != nil {
		file.Close()
		return nil, err
	}
	if err := sign(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("signing the lock: %w", err)
	}
	return file, nil
}

func flock(ctx context.Context, file *os.File, waiting func(holder string)) error {
	ticker := time.NewTicker(lockInterval)
	defer ticker.Stop()
	told := false
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("locking %s: %w", file.Name(), err)
		}
		if !told {
			waiting(holderOf(file))
			told = true
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", file.Name(), context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

// sign writes who holds the lock, for those who wait.
func sign(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt(fmt.Appendf(nil, "process %d since %s", os.Getpid(), time.Now().Format(time.TimeOnly)), 0)
	return err
}

// holderOf reads the holder's signature. A holder that has only just come has not signed yet.
func holderOf(file *os.File) string {
	signature := make([]byte, 100)
	n, err := file.ReadAt(signature, 0)
	if n == 0 || (err != nil && !errors.Is(err, io.EOF)) {
		return "another process"
	}
	return string(signature[:n])
}
