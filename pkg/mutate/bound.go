package mutate

import (
	"net/http"

	"golang.org/x/sync/semaphore"
)

// Bound lets so many reviews be under way at a time, and answers any other at once with a 503 and without reading it: with
// failure policy Ignore the API server lets the pod through, unheld. To let a review wait would be worse: the reviews that are
// under way share the processor, and one that is answered after the API server's timeout has held its pod up for nothing.
//
// The answer has no Retry-After: the API server's client would wait as long, and ask again.
func Bound(reviews http.Handler, limit int, metrics *Metrics) http.Handler {
	underWay := semaphore.NewWeighted(int64(limit))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !underWay.TryAcquire(1) {
			metrics.shed.Inc()
			http.Error(w, "as many reviews as may be are under way", http.StatusServiceUnavailable)
			return
		}
		metrics.underWay.Inc()
		defer metrics.underWay.Dec()
		defer underWay.Release(1)
		reviews.ServeHTTP(w, r)
	})
}
