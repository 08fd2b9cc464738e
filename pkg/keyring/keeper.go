package keyring

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// restEvery is how often the Secret is read while nothing is under way: an annotation may ask for a new key.
	restEvery = 30 * time.Second
	// moveEvery is how often a step that waits is looked at.
	moveEvery = 5 * time.Second
	// useEvery is how often pods are looked at for a key that some of them are signed with: it takes a list of all that are held or
	// kept, and those are kept for an hour by default.
	useEvery = time.Minute
	// patience is how long a rotation may wait for its readers before that is a line in the log: a kubelet brings a changed
	// Secret within about a minute.
	patience = 5 * time.Minute
)

// Signed reports whether there is a pod that is signed with a key as wanted.
type Signed func(ctx context.Context, want func(key string) bool) (bool, error)

// Options are what a Keeper works with.
type Options struct {
	Site
	Every    time.Duration // how long a key signs; 0: until somebody asks for another
	Own      func() requeue.Keys
	Signed   Signed
	Clock    clock.WithTicker
	Log      *slog.Logger
	Registry prometheus.Registerer // nil for no metrics
}

// Keeper looks after one Secret. Its methods are for one goroutine at a time.
type Keeper struct {
	Options
	steps  *prometheus.CounterVec
	heldUp prometheus.Gauge

	seen  Seen
	last  Step      // what was decided last
	since time.Time // and since when, where it is a wait
	told  bool      // that it is held up
	fault string    // the last error, so that it is logged once
}

// NewKeeper returns a Keeper that does nothing yet.
func NewKeeper(o Options) (*Keeper, error) {
	k := &Keeper{Options: o,
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "airflow_requeue_signing_key_steps_total",
			Help: "Steps in the life of signing keys: fill, restore, publish, sign, retire."}, []string{"step"}),
		heldUp: prometheus.NewGauge(prometheus.GaugeOpts{Name: "airflow_requeue_signing_keys_held_up",
			Help: "1 while the leader can't go on with the signing keys' rotation, and has said so in its log."})}
	for a := Fill; a <= Retire; a++ {
		k.steps.WithLabelValues(a.String())
	}
	if o.Registry == nil {
		return k, nil
	}
	for _, c := range []prometheus.Collector{k.steps, k.heldUp} {
		if err := o.Registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return k, nil
}

// Fill makes the first key of an empty Secret. It does nothing where there is one, or where somebody has keys: who does not
// lead does no more than that.
func (k *Keeper) Fill(ctx context.Context) error {
	_, err := k.step(ctx, func(a Action) bool { return a == Fill })
	return err
}

// FillUntil tries to fill an empty Secret until the context ends. It is for a process that waits for keys to be mounted.
func (k *Keeper) FillUntil(ctx context.Context) {
	k.every(ctx, func() time.Duration {
		k.complain(ctx, k.Fill(ctx))
		return moveEvery
	})
}

// Lead takes steps until the context ends. Two that lead at once do no harm: a step is written on what it was decided on.
func (k *Keeper) Lead(ctx context.Context) {
	k.seen, k.last, k.told, k.fault = Seen{}, Step{}, false, ""
	defer k.heldUp.Set(0)
	k.every(ctx, func() time.Duration {
		step, err := k.step(ctx, func(a Action) bool { return a != Wait })
		k.complain(ctx, err)
		return pause(step, err)
	})
}

// pause is how long to wait after a step.
func pause(step Step, err error) time.Duration {
	switch {
	case err != nil:
		return moveEvery
	case step.Reason == NothingIsToDo:
		return restEvery
	case step.Reason == InUse:
		return useEvery
	}
	return moveEvery
}

func (k *Keeper) every(ctx context.Context, do func() time.Duration) {
	for ctx.Err() == nil {
		timer := k.Clock.NewTimer(do())
		select {
		case <-ctx.Done():
		case <-timer.C():
		}
		timer.Stop()
	}
}

// complain logs an error once, until it is another.
func (k *Keeper) complain(ctx context.Context, err error) {
	switch {
	case err == nil:
		k.fault = ""
	case ctx.Err() == nil && err.Error() != k.fault:
		k.fault = err.Error()
		k.Log.Warn("looking after the signing keys failed, trying again", "error", err)
	}
}

// step gathers, decides and, where the action may be taken, applies.
func (k *Keeper) step(ctx context.Context, may func(Action) bool) (Step, error) {
	secret, err := k.Get(ctx)
	if err != nil {
		return Step{}, err
	}
	in, err := k.gather(ctx, secret)
	if err != nil {
		return Step{}, err
	}
	step := Decide(in, k.Clock.Now())
	k.tell(step)
	if !may(step.Action) {
		return step, nil
	}
	return step, k.apply(ctx, secret, in.Ring, step)
}

// gather asks no more than a decision may need: at rest the Secret alone.
func (k *Keeper) gather(ctx context.Context, secret *corev1.Secret) (in Input, err error) {
	own := k.Own()
	in = Input{Ring: Read(secret), Own: slices.Sorted(maps.Keys(own.Secrets)), Every: k.Every}
	if !in.Ring.Moving() {
		k.seen = Seen{}
		return in, nil
	}
	if in.Readers, err = k.Readers(ctx); err != nil {
		return in, err
	}
	k.seen = k.seen.And(in.Ring, in.Readers, k.Clock.Now())
	in.Seen = k.seen
	if len(in.Ring.Keys) == 0 {
		in.Signed, err = k.Signed(ctx, func(string) bool { return true })
		return in, err
	}
	if in.Ring.Next != "" || in.Seen.SignCurrent.IsZero() || k.Clock.Since(in.Seen.SignCurrent) < signFor {
		return in, nil // nothing is retired meanwhile
	}
	for _, old := range in.Ring.Old {
		used, err := k.Signed(ctx, func(key string) bool { return key == old })
		if err != nil {
			return in, err
		}
		if used {
			in.InUse = append(in.InUse, old)
		}
	}
	return in, nil
}

// tell says once what holds a rotation up: what is wrong with the Secret at once, what readers lack when it lasts.
func (k *Keeper) tell(step Step) {
	now := k.Clock.Now()
	if step.Action != k.last.Action || step.Reason != k.last.Reason || step.Key != k.last.Key {
		if k.told {
			k.Log.Info("the signing keys are no longer held up")
		}
		k.since, k.told = now, false
	}
	k.last = step
	if step.HeldUp() && !k.told && (step.Reason == Trouble || now.Sub(k.since) >= patience) {
		k.told = true
		k.Log.Warn("the signing keys are held up", "secret", k.Secret, "key", step.Key, "reason", step.Reason, "message", step.Message)
	}
	k.heldUp.Set(0)
	if k.told {
		k.heldUp.Set(1)
	}
}

func (k *Keeper) apply(ctx context.Context, secret *corev1.Secret, ring Ring, step Step) error {
	raw, err := patch(secret, ring, step, k.Own(), k.Clock.Now())
	if err != nil {
		return fmt.Errorf("making the step %s of Secret %s/%s: %w", step.Action, k.Namespace, k.Secret, err)
	}
	_, err = k.Client.CoreV1().Secrets(k.Namespace).Patch(ctx, k.Secret, types.MergePatchType, raw, metav1.PatchOptions{})
	switch {
	case apierrors.IsConflict(err):
		return nil // it has changed: looked at anew
	case err != nil:
		return fmt.Errorf("writing Secret %s/%s (%s): %w", k.Namespace, k.Secret, step.Action, err)
	}
	k.steps.WithLabelValues(step.Action.String()).Inc()
	k.Log.Info("signing keys changed", "secret", k.Secret, "step", step.Action.String(), "key", step.Key, "reason", step.Reason, "message", step.Message)
	return nil
}
