package httpserve

import (
	"net/http"
	"net/http/pprof"
)

// WithProfiles serves Go's profiles at /debug/pprof as well, where wanted.
func WithProfiles(next http.Handler, wanted bool) http.Handler {
	if !wanted {
		return next
	}
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
