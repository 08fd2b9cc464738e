package bench

import (
	"fmt"
	"io"
	"strings"
)

// Table writes the goals as a table of Markdown.
func (r *Report) Table(w io.Writer) error {
	lines := []string{"| | reach | measured | met |", "|---|---|---|---|"}
	for _, g := range r.Goals {
		measured, met := g.Measured, g.Met
		if met == "" {
			measured = "not measured"
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s |", g.What, g.Reach, measured, met))
	}
	if r.Conditions.Quick {
		lines = append(lines, "", "A quick run: the numbers mean nothing.")
	}
	_, err := fmt.Fprintln(w, strings.Join(lines, "\n"))
	return err
}
