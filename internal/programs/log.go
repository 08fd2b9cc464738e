package programs

import (
	"io"
	"slices"
	"strings"
	"sync"
)

// Log keeps what programs say. The zero value is empty.
type Log struct {
	// To has all of it as well; nil for nobody.
	To io.Writer

	mu   sync.Mutex
	text strings.Builder
}

// Write makes a Log an io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if l.To == nil {
		return len(p), nil
	}
	return l.To.Write(p)
}

// String is all that was said.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// About are the lines that have one of the words.
func (l *Log) About(words ...string) string {
	var about strings.Builder
	for line := range strings.Lines(l.String()) {
		if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(line, word) }) {
			about.WriteString(line)
		}
	}
	return about.String()
}
