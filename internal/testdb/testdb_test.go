package testdb

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
)

// ending keeps how a test ends from the test that looks on.
type ending struct {
	testing.TB
	how string
}

func (e *ending) Helper() {}

func (e *ending) Skipf(format string, args ...any) { e.end("skipped: " + fmt.Sprintf(format, args...)) }

func (e *ending) Fatalf(format string, args ...any) { e.end("failed: " + fmt.Sprintf(format, args...)) }

func (e *ending) end(how string) {
	e.how = how
	runtime.Goexit()
}

func TestWithoutItsServerATestIsSkippedAndInCIFails(t *testing.T) {
	for ci, want := range map[string]string{
		"":      "skipped: postgres-of-nowhere is not installed: run hack/databases.sh",
		"false": "skipped: postgres-of-nowhere is not installed: run hack/databases.sh",
		"true":  "failed: postgres-of-nowhere is not installed: run hack/databases.sh",
	} {
		t.Setenv("CI", ci)
		test, ended := &ending{TB: t}, make(chan struct{})
		go func() {
			defer close(ended)
			binary(test, "postgres-of-nowhere")
		}()
		<-ended
		assert.Equal(t, want, test.how, "CI=%s", ci)
	}
}
