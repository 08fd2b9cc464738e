package preflight

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// width is that of the table, in characters, unless one word is longer.
const width = 100

// Print writes the findings as a table, and under it what is to be done.
func Print(w io.Writer, all []Finding) error {
	var b strings.Builder
	names := 0
	for _, f := range all {
		names = max(names, utf8.RuneCountInString(f.Check))
	}
	for _, f := range all {
		row(&b, fmt.Sprintf("%-4s  %-*s  ", f.State, names, f.Check), f.Seen)
	}
	title := "\nWhat to do:\n"
	for _, f := range all {
		if f.ToDo != "" {
			b.WriteString(title)
			title = ""
			row(&b, fmt.Sprintf("%-4s  %-*s  ", f.State, names, f.Check), f.ToDo)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// row writes text after a head, broken between words, each further line below the first one's text.
func row(b *strings.Builder, head, text string) {
	indent := utf8.RuneCountInString(head)
	b.WriteString(strings.TrimRight(head, " "))
	column := width // so that the first word begins a line
	pad := strings.Repeat(" ", indent-utf8.RuneCountInString(strings.TrimRight(head, " ")))
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
			b.WriteString(pad)
			column = indent
		case column+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
}
