package flags

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// Log says what is logged and how. The zero value is not valid: see AddLogFlags.
type Log struct {
	Level  string
	Format string
}

// AddLogFlags adds the flags of l and sets their defaults.
func AddLogFlags(set *pflag.FlagSet, l *Log) {
	set.StringVar(&l.Level, "log-level", "info", "least `level` to log: debug, info, warn or error")
	set.StringVar(&l.Format, "log-format", "json", "json or text")
}

// New returns a logger that writes to w.
func (l Log) New(w io.Writer) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	switch l.Level {
	case "debug":
		opts.Level = slog.LevelDebug
	case "info":
		opts.Level = slog.LevelInfo
	case "warn":
		opts.Level = slog.LevelWarn
	case "error":
		opts.Level = slog.LevelError
	default:
		return nil, fmt.Errorf("--log-level=%s: use debug, info, warn or error", l.Level)
	}
	switch l.Format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("--log-format=%s: use json or text", l.Format)
}
