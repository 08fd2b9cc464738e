package cluster

import (
	"context"
	"maps"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/airflow-requeue/airflow-requeue/internal/kubelet"
)

// mount is a volume of a pod that has a Secret's content.
type mount struct {
	source     *corev1.SecretVolumeSource
	dir        string
	has        map[string][]byte
	generation int
}

// mounts are a pod's, by volume, in a folder.
func mounts(pod *corev1.Pod, dir string) map[string]*mount {
	all := map[string]*mount{}
	for _, volume := range pod.Spec.Volumes {
		if volume.Secret != nil {
			all[volume.Name] = &mount{source: volume.Secret, dir: filepath.Join(dir, volume.Name)}
		}
	}
	return all
}

// refresh brings a mount up to date, and reports whether all that must be there is.
func (r *running) refresh(ctx context.Context, m *mount) bool {
	secret, err := r.cluster.client.CoreV1().Secrets(r.pod.Namespace).Get(ctx, m.source.SecretName, metav1.GetOptions{})
	if err != nil {
		return false
	}
	files := map[string][]byte{}
	for key, content := range secret.Data {
		files[key] = content
	}
	if len(m.source.Items) > 0 {
		files = map[string][]byte{}
		for _, item := range m.source.Items {
			content, ok := secret.Data[item.Key]
			if !ok {
				return false
			}
			files[item.Path] = content
		}
	}
	if m.has != nil && maps.EqualFunc(files, m.has, func(a, b []byte) bool { return string(a) == string(b) }) {
		return true
	}
	m.generation++
	if err := kubelet.Mount(m.dir, "..generation-"+strconv.Itoa(m.generation), files); err != nil {
		r.cluster.t.Errorf("mounting Secret %s: %v", m.source.SecretName, err)
		return false
	}
	m.has = files
	return true
}

// mounted waits until all volumes are there, and keeps them up to date until the pod ends.
func (r *running) mounted(ctx context.Context) (paths map[string]string, ok bool) {
	all := mounts(r.pod, r.dir)
	look := func() bool {
		ok := true
		for _, m := range all {
			ok = r.refresh(ctx, m) && ok
		}
		return ok
	}
	for !look() {
		if !pause(ctx, r.cluster.Interval) {
			return nil, false
		}
	}
	r.parts.Go(func() {
		for pause(ctx, r.cluster.Interval) {
			look()
		}
	})
	paths = map[string]string{}
	for name, m := range all {
		paths[name] = m.dir
	}
	return paths, true
}

// pause waits, and reports whether there is more to do.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
