package preflight

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/airflow-requeue/airflow-requeue/pkg/keyring"
)

// rotation says how the keys of the Secret stand, and which pods hold their next step up.
func (c *checker) rotation(ctx context.Context) Finding {
	site := keyring.Site{Client: c.client, Installation: c.Installation, Namespace: c.Lease.Namespace, Secret: c.KeysSecret}
	secret, err := site.Get(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return warn("make it as manifests/base/signing-keys.yaml does, or set --signing-keys-secret to nothing where somebody else brings the keys",
			"there is no Secret %s in namespace %s", c.KeysSecret, c.Lease.Namespace)
	case err != nil:
		return c.untold(err)
	}
	ring := keyring.Read(secret)
	switch {
	case ring.Trouble != "":
		return warn("mend it; the keys that are mounted go on being used", "nothing is done to Secret %s: %s", c.KeysSecret, ring.Trouble)
	case len(ring.Keys) == 0:
		return warn("normal before the first watcher has started, which fills it; a watcher that leads puts back what it has mounted",
			"Secret %s has no key", c.KeysSecret)
	case !ring.Moving():
		return ok("%s", ring)
	}
	readers, err := site.Readers(ctx)
	if err != nil {
		return c.untold(err)
	}
	return judgeRotation(ring, readers)
}

// judgeRotation warns of what can't be told. That a reader is behind is usual for a minute.
func judgeRotation(ring keyring.Ring, readers []keyring.Reader) Finding {
	switch reason, message := ring.WaitsFor(readers); reason {
	case "":
		return ok("%s", ring)
	case keyring.ReaderBehind:
		return ok("%s; %s", ring, message)
	default:
		return warn("let the watcher's pods reach port metrics of the webhook's and of one another, and see why these do not answer: "+
			"until they do, or are gone, no key signs and none is retired", "%s; %s", ring, message)
	}
}
