package watcher

import (
	"log/slog"
	"sync"
	"time"
)

// database remembers whether the metadata database can be read. The leader says so on its Lease.
type database struct {
	log *slog.Logger

	mu    sync.Mutex
	known bool      // something was read, or failed to be
	since time.Time // first failure of the outage; zero while it can be read
	heard time.Time // when the last read that counts had ended
	err   error     // of the last read
}

// observe takes the outcome of a read that began at a time, logs a change of state once, and returns since when reads
// fail; after a read that failed never zero. Of reads at the same time some fail and some don't as an outage begins or
// ends: what began before the last news is no news.
func (d *database) observe(err error, began, now time.Time) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if began.Before(d.heard) {
		if err != nil && d.since.IsZero() {
			return now
		}
		return d.since
	}
	d.heard = now
	switch {
	case err != nil && d.since.IsZero():
		d.since = now
		d.log.Error("metadata database is unreadable", "error", err)
	case err == nil && !d.since.IsZero():
		d.log.Info("metadata database is readable again", "after", now.Sub(d.since).Round(time.Second).String())
		d.since = time.Time{}
	}
	d.known, d.err = true, err
	return d.since
}

// readable reports whether the last read succeeded.
func (d *database) readable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known && d.since.IsZero()
}

func (d *database) lastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
