package scrape

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMetricsAreReadAndAddedUpOverTheirLabels(t *testing.T) {
	found, err := Read(strings.NewReader(`# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{verb="GET",what="a b"} 1
requests_total{verb="PATCH",what="c"} 2.5e+01
requests_total_other 7
`))
	require.NoError(t, err)
	assert.Equal(t, Samples{`requests_total{verb="GET",what="a b"}`: 1, `requests_total{verb="PATCH",what="c"}`: 25, "requests_total_other": 7}, found)
	assert.InDelta(t, 26, found.Sum("requests_total"), 0)
	assert.InDelta(t, 1, found.Sum("requests_total", `verb="GET"`), 0)
	assert.Zero(t, found.Sum("nothing_total"))
}
