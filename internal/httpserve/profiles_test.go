package httpserve

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
)

func TestProfilesAreServedWhereTheyAreWanted(t *testing.T) {
	for wanted, code := range map[bool]int{true: http.StatusOK, false: http.StatusNotFound} {
		handler := WithProfiles(Admin(prometheus.NewRegistry()), wanted)
		for path, want := range map[string]int{"/livez": http.StatusOK, "/debug/pprof/heap": code} {
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, nil))
			assert.Equal(t, want, recorder.Code, path)
		}
	}
}
