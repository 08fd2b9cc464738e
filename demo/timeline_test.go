package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/types"
)

func TestWhatTheExecutorSawStandsBesideTheEvent(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end, lift := mark{"uid-1", "10"}, mark{"uid-1", "12"}
	pod := func(at time.Duration, of mark, text string) line {
		return line{at: began.Add(at), actor: "node-a", mark: of, text: func() string { return text }}
	}
	sight := func(at time.Duration, of mark, s sights) line {
		return line{at: began.Add(at), actor: "executor", mark: of, sights: s, text: func() string { return "sees etl-1" }}
	}
	ending := func(l line, unseen bool) line {
		l.ending, l.unseen = true, unseen
		return l
	}
	for name, tc := range map[string]struct {
		lines []line
		want  string
	}{
		"both watches, one before the line and one after": {
			lines: []line{sight(0, end, sights{without: "failed"}), pod(time.Millisecond, end, "Failed"), sight(2*time.Millisecond, end, sights{saw: "failed"})},
			want:  row("0.0s", "node-a", "Failed", "failed", "failed"),
		},
		"an end that only the watch without us reports": {
			lines: []line{ending(pod(0, end, "Failed"), true), sight(0, end, sights{without: "failed"})},
			want:  row("0.0s", "node-a", "Failed", "nothing", "failed"),
		},
		"an end that neither reports": {
			lines: []line{ending(pod(0, end, "deleted"), true)},
			want:  row("0.0s", "node-a", "deleted", "nothing", "nothing"),
		},
		"an end of which was reported before": {
			lines: []line{ending(pod(0, end, "Failed"), false)},
			want:  row("0.0s", "node-a", "Failed", "nothing", ""),
		},
		"another version of the pod": {
			lines: []line{pod(0, end, "Failed"), pod(time.Second, lift, "lifts the hold"), sight(time.Second, lift, sights{saw: "failed"})},
			want: row("0.0s", "node-a", "Failed", "", "") +
				row("1.0s", "node-a", "lifts the hold", "failed", ""),
		},
		"an event that no line tells of": {
			lines: []line{sight(0, end, sights{saw: "adopted"})},
			want:  row("0.0s", "executor", "sees etl-1", "adopted", ""),
		},
		"lines come in the order of what they tell": {
			lines: []line{pod(2*time.Second, lift, "second"), pod(time.Second, end, "first")},
			want:  row("1.0s", "node-a", "first", "", "") + row("2.0s", "node-a", "second", "", ""),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			show := newTimeline(newScreen(&out, false), began)
			for _, l := range tc.lines {
				show.add(l)
			}
			show.flush(began.Add(time.Hour))
			assert.Equal(t, tc.want, out.String())
		})
	}
}

// row is a line of the timeline, in its columns.
func row(at, actor, text, saw, without string) string {
	return strings.TrimRight(fmt.Sprintf("%6s  %-9s  %-66s  %-9s  %s", at, actor, text, saw, without), " ") + "\n"
}

func TestALineWaitsUntilItIsSettled(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	show := newTimeline(newScreen(&out, false), began)
	show.add(line{at: began.Add(time.Second), actor: "node-a", mark: mark{types.UID("uid-1"), "10"}, text: func() string { return "Failed" }})

	show.flush(began.Add(time.Second - 1))
	assert.Empty(t, out.String())

	show.flush(began.Add(time.Second))
	assert.Equal(t, row("1.0s", "node-a", "Failed", "", ""), out.String())
}

func TestTextThatIsTooLongIsCut(t *testing.T) {
	assert.Equal(t, "…-r1 is", cut("…-r1 is", 7))
	assert.Equal(t, "…-r1…", cut("…-r1 is", 6))
}

func TestColourIsAroundTheTextAlone(t *testing.T) {
	var out bytes.Buffer
	screen{w: &out, colour: true}.row(cell{"a", 3, red}, cell{"b", -3, plain}, cell{"", 4, dim})
	assert.Equal(t, "\x1b[31ma\x1b[0m      b\n", out.String())
}
