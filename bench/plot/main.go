// Command plot draws what bench has measured: plot bench.json bench.svg.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: plot bench.json bench.svg")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

func run(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(content, &r); err != nil {
		return fmt.Errorf("reading %s: %w", from, err)
	}
	var panels [][]*plot.Plot
	for _, row := range [][]func(report) (*plot.Plot, error){{admission, recovery}, {storms, curves}, {memory, polling}} {
		var drawn []*plot.Plot
		for _, panel := range row {
			p, err := panel(r)
			if err != nil {
				return fmt.Errorf("drawing: %w", err)
			}
			p.Title.TextStyle.Font.Size, p.Legend.TextStyle.Font.Size = 11, 8
			p.X.Label.TextStyle.Font.Size, p.Y.Label.TextStyle.Font.Size = 9, 9
			p.Title.Padding = 6
			drawn = append(drawn, p)
		}
		panels = append(panels, drawn)
	}
	return write(panels, to)
}

func write(panels [][]*plot.Plot, to string) error {
	canvas := vgsvg.New(24*vg.Centimeter, 24*vg.Centimeter)
	within := draw.New(canvas)
	tiles := draw.Tiles{Rows: len(panels), Cols: len(panels[0]), PadX: 18, PadY: 18, PadTop: 8, PadBottom: 8, PadLeft: 8, PadRight: 8}
	for i, row := range plot.Align(panels, tiles, within) {
		for j, tile := range row {
			panels[i][j].Draw(tile)
		}
	}
	file, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(file); err != nil {
		return err
	}
	return file.Close()
}
