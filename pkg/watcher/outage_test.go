package watcher

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReadsThatOverlapAsAnOutageBeginsOrEndsChangeTheStateOnce(t *testing.T) {
	t.Parallel()
	refused := errors.New("the server closed the connection")
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const unreadable, again = `level=ERROR msg="metadata database is unreadable" error="the server closed the connection"`,
		`level=INFO msg="metadata database is readable again" after=`
	type read struct {
		began, ended time.Duration
		err          error
	}
	for _, c := range []struct {
		name     string
		reads    []read
		want     []string
		readable bool
	}{
		{"nothing was read", nil, nil, false},
		{"a read succeeds", []read{{0, 1, nil}}, nil, true},
		{"one fails as the outage begins, and one that began before has its answer yet",
			[]read{{0, 1, nil}, {2, 5, refused}, {3, 6, nil}, {7, 8, refused}}, []string{unreadable}, false},
		{"one has its answer as the outage ends, and one that began before fails yet",
			[]read{{0, 1, refused}, {time.Minute, time.Minute + 1, nil}, {2, time.Minute + 2, refused}}, []string{unreadable, again + "1m0s"}, true},
		{"an outage begins under reads that overlap", []read{{0, 5, nil}, {4, 6, refused}, {5, 7, refused}}, []string{unreadable}, false},
		{"reads begin when others have ended", []read{{0, 1, nil}, {1, 2, refused}, {2, time.Second, nil}}, []string{unreadable, again + "1s"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log := &lines{}
			d := &database{log: slog.New(slog.NewTextHandler(log, nil))}
			for _, r := range c.reads {
				since := d.observe(r.err, noon.Add(r.began), noon.Add(r.ended))
				require.False(t, r.err != nil && since.IsZero(), "since when a read fails is known after one that did")
			}
			require.ElementsMatch(t, c.want, log.said())
			require.Equal(t, c.readable, d.readable())
		})
	}
}
