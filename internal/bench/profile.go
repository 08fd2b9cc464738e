package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// profiling is for how long a profile is taken. Go's takes its time in advance.
const profiling = 4 * time.Second

// profiled runs f, and takes CPU profiles of its first seconds where they are asked for: of the API server, and of the programs
// that serve profiles at these addresses.
func (i *site) profiled(name string, addresses map[string]string, f func()) {
	i.t.Helper()
	if i.options.Profiles == "" {
		f()
		return
	}
	require.NoError(i.t, os.MkdirAll(i.options.Profiles, 0o755))
	query := fmt.Sprintf("/debug/pprof/profile?seconds=%.0f", profiling.Seconds())
	take := map[string]func() ([]byte, error){"kube-apiserver": func() ([]byte, error) {
		return i.client.CoreV1().RESTClient().Get().RequestURI(query).DoRaw(i.t.Context())
	}}
	for of, address := range addresses {
		take[of] = func() ([]byte, error) { return fetch(i.t.Context(), "http://"+address+query) }
	}
	var all errgroup.Group
	for of, take := range take {
		all.Go(func() error {
			profile, err := take()
			if err == nil {
				err = os.WriteFile(filepath.Join(i.options.Profiles, name+"-"+of+".pprof"), profile, 0o600)
			}
			if err != nil {
				return fmt.Errorf("profile of %s: %w", of, err)
			}
			return nil
		})
	}
	f()
	require.NoError(i.t, all.Wait())
}

func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", request.URL.Path, response.Status)
	}
	return body, err
}
