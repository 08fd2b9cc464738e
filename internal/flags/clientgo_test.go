package flags

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAMessageOfClientGoIsLoggedOnceAMinute(t *testing.T) {
	var out bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	text := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})
	log := slog.New(&onceAMinute{Handler: text, said: &said{at: map[string]time.Time{}}, now: func() time.Time { return now }})

	log.Error("no lease", "try", 1)
	log.With("lock", "a").Error("no lease", "try", 2)
	log.Error("no list", "try", 1)
	now = now.Add(time.Minute)
	log.WithGroup("g").Error("no lease", "try", 3)

	assert.Equal(t, "msg=\"no lease\" try=1\nmsg=\"no list\" try=1\nmsg=\"no lease\" g.try=3\n", out.String())
}
