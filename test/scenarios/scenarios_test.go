package scenarios

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/controlplane"
	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// scenario is one case of a row of docs/scenarios.md: what is seen, what must come of it, and the play that shows it.
type scenario struct {
	row        string // a number of the table, or a letter of what must hold
	seen, want string
	// alone is on an installation of its own: the play disturbs all of it, or its programs.
	alone bool
	// outage is alone, with an API server of its own.
	outage bool
	// watcher and webhook are flags beyond those that there always are; the case is alone.
	watcher, webhook []string
	// grace is what the play waits for by the clock; all else comes in moments.
	grace time.Duration
	play  func(s *stage)
}

func (c scenario) name() string { return c.row + " " + c.seen + ": " + c.want }

// rows are the cases of the table's rows, in its order.
func rows() []scenario {
	return slices.Concat(gone(), alive(), waiting(), ended(), notReplaced(), replaced())
}

// on plays a case on an installation.
func (c scenario) on(t testing.TB, i *installation, patience time.Duration) {
	t.Helper()
	s := &stage{T: t, installation: i, patience: patience + c.grace}
	t.Cleanup(func() {
		if t.Failed() {
			s.tell()
		}
	})
	c.play(s)
	s.close()
}

// install starts the installation that a case needs for itself.
func (c scenario) install(t testing.TB, built programs.Built) *installation {
	t.Helper()
	servers := shared.Servers
	if c.outage {
		own, err := controlplane.Start(t.Context(), controlplane.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := own.Stop(); err != nil {
				t.Error(err)
			}
		})
		servers = own
	}
	return install(t, servers, built, c.watcher, c.webhook)
}

// isAlone reports whether a case has an installation to itself.
func (c scenario) isAlone() bool { return c.alone || c.outage || len(c.watcher)+len(c.webhook) > 0 }

// play plays cases at the same time, on one installation where they can.
func play(t *testing.T, cases []scenario) {
	t.Helper()
	common := install(t, shared.Servers, shared.Built, programs.Steady(), nil)
	t.Cleanup(func() { assert.Empty(t, common.left(), "what was broken on the way, or is left over") })
	for _, c := range cases {
		t.Run(c.name(), func(t *testing.T) {
			t.Parallel()
			i := common
			if c.isAlone() {
				i = c.install(t, shared.Built)
			}
			c.on(t, i, world.Patience)
		})
	}
}

func TestRows(t *testing.T) {
	t.Parallel()
	play(t, rows())
}

func TestPromises(t *testing.T) {
	t.Parallel()
	play(t, promises())
}
