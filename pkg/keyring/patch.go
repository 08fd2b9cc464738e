package keyring

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// change is a JSON merge patch of the Secret: what it does not name stays. With its resourceVersion the API server answers
// 409 where the Secret is no longer the one that was decided on.
type change struct {
	Metadata struct {
		ResourceVersion string             `json:"resourceVersion"`
		Annotations     map[string]*string `json:"annotations"`
	} `json:"metadata"`
	Data map[string][]byte `json:"data"` // nil deletes
}

// patch is the one write that does a step. own are the keys that this process has.
func patch(secret *corev1.Secret, ring Ring, step Step, own requeue.Keys, now time.Time) ([]byte, error) {
	c := change{Data: map[string][]byte{}}
	c.Metadata.ResourceVersion = secret.ResourceVersion
	c.Metadata.Annotations = map[string]*string{}
	annotate := func(name, value string) {
		if c.Metadata.Annotations[name] = &value; value == "" {
			c.Metadata.Annotations[name] = nil
		}
	}
	signs := func(key string) {
		c.Data[requeue.CurrentKey] = []byte(key)
		annotate(AnnotationSince, key+" "+now.UTC().Format(time.RFC3339))
		annotate(AnnotationNext, "")
	}
	switch step.Action {
	case Fill:
		c.Data[step.Key] = newKey()
		signs(step.Key)
		annotate(AnnotationOld, "")
		annotate(AnnotationRotate, "")
	case Restore:
		for id, content := range own.Secrets {
			c.Data[id] = content
		}
		signs(own.Current)
	case Publish:
		c.Data[step.Key] = newKey()
		annotate(AnnotationNext, step.Key)
		annotate(AnnotationRotate, "")
	case Sign:
		signs(step.Key)
		annotate(AnnotationOld, strings.Join(append(slices.Clone(ring.Old), ring.Current), " "))
	case Retire:
		c.Data[step.Key] = nil
		annotate(AnnotationOld, strings.Join(slices.DeleteFunc(slices.Clone(ring.Old), func(id string) bool { return id == step.Key }), " "))
	default:
		return nil, fmt.Errorf("writing the step %s: it is none", step.Action)
	}
	return json.Marshal(c)
}

// newKey is a secret of 260 random bits, as text: a newline at a file's end would not be part of it.
func newKey() []byte { return []byte(rand.Text() + rand.Text()) }
