package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// samples are a process' metrics: by name and labels, as they stand in Prometheus' text format.
type samples map[string]float64

// ready asks a process whether it is.
func ready(ctx context.Context, address string) bool {
	response, err := get(ctx, "http://"+address+"/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func get(ctx context.Context, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}

// scrape reads the metrics that a process serves.
func scrape(ctx context.Context, address string) (samples, error) {
	response, err := get(ctx, "http://"+address+"/metrics")
	if err != nil {
		return nil, fmt.Errorf("asking for metrics: %w", err)
	}
	defer response.Body.Close()
	found := samples{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if number, err := strconv.ParseFloat(value, 64); ok && err == nil { // comments have no number there
			found[name] = number
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	return found, nil
}

// sum adds up a metric over all labels but those given, such as `reason="Evicted"`.
func (s samples) sum(name string, labels ...string) float64 {
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
