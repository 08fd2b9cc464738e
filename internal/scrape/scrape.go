// Package scrape reads metrics in Prometheus' text format.
package scrape

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Samples are a process' metrics: by name and labels, as they stand in the text.
type Samples map[string]float64

// Get reads the metrics that a process serves at an address, by plain HTTP.
func Get(ctx context.Context, address string) (Samples, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	defer response.Body.Close()
	return Read(response.Body)
}

// Read reads metrics.
func Read(text io.Reader) (Samples, error) {
	found := Samples{}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		name, value, ok := cut(lines.Text())
		if number, err := strconv.ParseFloat(value, 64); ok && err == nil { // comments have no number there
			found[name] = number
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	return found, nil
}

// cut parts name and labels from the value: a label's value may have spaces.
func cut(line string) (name, value string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 {
		return "", "", false
	}
	return line[:i], line[i+1:], true
}

// Sum adds up a metric over all labels but those given, such as `reason="Evicted"`.
func (s Samples) Sum(name string, labels ...string) float64 {
	var sum float64
next:
	for sample, value := range s {
		if sample != name && !strings.HasPrefix(sample, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(sample, label) {
				continue next
			}
		}
		sum += value
	}
	return sum
}
