package selfsigned

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// lookEvery is how often the webhook configuration is looked at: somebody may have applied it anew, without a caBundle.
const lookEvery = 10 * time.Second

// tries bounds the looks in a row, while somebody changes the configuration between our look and our write.
const tries = 5

// inject keeps the caBundle right until ctx is done: looks at once when the authority changes, and every while.
func (s *Source) inject(ctx context.Context, changed <-chan struct{}) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		err := s.look(ctx)
		for i := 1; i < tries && errors.Is(err, errChanged); i++ {
			err = s.look(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		s.trouble.say("caBundle not kept right", err)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-ticker.C:
		}
	}
}

// errNoAuthority is while the Secret has none yet: whoever makes it tells us.
var errNoAuthority = errors.New("no authority yet")

// look reads Secret and configuration, and makes the one write that is due.
func (s *Source) look(ctx context.Context) error {
	own, err := s.own(ctx)
	if errors.Is(err, errNoAuthority) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.Configuration == "" {
		s.trusted.set(own, false, s.Clock.Now()) // it is somebody else's to see to
		return nil
	}
	configurations := s.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration, err := configurations.Get(ctx, s.Configuration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		s.trusted.set(own, false, s.Clock.Now()) // and nobody is asked
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading MutatingWebhookConfiguration %s: %w", s.Configuration, err)
	}
	patch, instead := change(configuration, own, s.Clock.Now())
	if patch != nil {
		if err := s.patch(ctx, patch); err != nil {
			return err
		}
		s.Log.Info("ca bundle changed", "configuration", s.Configuration, "authority", own.SerialNumber.String(), "until", own.NotAfter)
	}
	s.trusted.set(own, instead, s.Clock.Now())
	return nil
}

func (s *Source) patch(ctx context.Context, patch []operation) error {
	raw, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("patching MutatingWebhookConfiguration %s: %w", s.Configuration, err)
	}
	_, err = s.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, s.Configuration, types.JSONPatchType, raw, metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsInvalid(err) { // a failed test is the latter
		err = fmt.Errorf("%w: %w", errChanged, err)
	}
	if err != nil {
		return fmt.Errorf("patching MutatingWebhookConfiguration %s: %w", s.Configuration, err)
	}
	return nil
}

// errChanged is a configuration that somebody changed between our look and our write.
var errChanged = errors.New("changed meanwhile")

// own reads the authority from its Secret.
func (s *Source) own(ctx context.Context) (*x509.Certificate, error) {
	secret, err := s.client.CoreV1().Secrets(s.Namespace).Get(ctx, s.Secret, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s/%s: %w", s.Namespace, s.Secret, err)
	}
	all := authorities(secret.Data[corev1.TLSCertKey])
	if len(all) == 0 {
		return nil, errNoAuthority
	}
	return all[0], nil
}

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// change is what makes the caBundles right, nil for nothing, guarded by the version that was read. instead says whether the API
// server trusts others by now, and our own no sooner than after it.
func change(configuration *admissionregistrationv1.MutatingWebhookConfiguration, own *x509.Certificate, now time.Time) (patch []operation, instead bool) {
	for i, hook := range configuration.Webhooks {
		before := hook.ClientConfig.CABundle
		right := bundle(own, before, now)
		if bytes.Equal(right, before) {
			continue
		}
		trusted := authorities(before)
		instead = instead || len(trusted) > 0 && !slices.ContainsFunc(trusted, own.Equal)
		patch = append(patch, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), right})
	}
	if patch == nil {
		return nil, false
	}
	return append([]operation{{"test", "/metadata/resourceVersion", configuration.ResourceVersion}}, patch...), instead
}
