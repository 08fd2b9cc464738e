package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// Widths of the timeline's columns; with the gaps between them they make 108.
const (
	timeWidth  = 6
	actorWidth = 9
	textWidth  = 66
	sightWidth = 9
	otherWidth = 10
	gap        = "  "
)

// screen writes to a terminal with restrained colours, and to anything else without.
type screen struct {
	w      io.Writer
	colour bool
}

// style is an ANSI rendition (SGR parameters); empty is none.
type style string

const (
	plain style = ""
	bold  style = "1"
	dim   style = "2"
	red   style = "31"
	green style = "32"
	cyan  style = "36"
)

func newScreen(w io.Writer, plain bool) screen {
	file, ok := w.(*os.File)
	if !ok || plain || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return screen{w: w}
	}
	info, err := file.Stat()
	return screen{w: w, colour: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (s screen) printf(format string, args ...any) {
	fmt.Fprintf(s.w, format, args...)
}

func (s screen) paint(text string, as style) string {
	if !s.colour || as == plain || text == "" {
		return text
	}
	return "\x1b[" + string(as) + "m" + text + "\x1b[0m"
}

// cell is text of a column: padded, and only then painted.
type cell struct {
	text  string
	width int // negative: flush right
	style style
}

// row prints cells with two spaces between them.
func (s screen) row(cells ...cell) {
	var b strings.Builder
	for i, c := range cells {
		if i > 0 {
			b.WriteString(gap)
		}
		pad := strings.Repeat(" ", max(0, max(c.width, -c.width)-utf8.RuneCountInString(c.text)))
		if c.width < 0 {
			b.WriteString(pad)
			pad = ""
		}
		b.WriteString(s.paint(c.text, c.style) + pad)
	}
	s.printf("%s\n", strings.TrimRight(b.String(), " "))
}

// cut shortens text that a column has no room for.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return strings.TrimRight(string([]rune(text)[:width-1]), " ") + "…"
}
