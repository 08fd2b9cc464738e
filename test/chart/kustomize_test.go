package chart_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/airflow-requeue/airflow-requeue/internal/programs"
	"github.com/airflow-requeue/airflow-requeue/internal/rendered"
	"github.com/airflow-requeue/airflow-requeue/internal/world"
)

// patient is what a busy machine needs, as steady is for the chart.
const patient = `
patches:
  - target: {kind: Deployment, name: airflow-requeue-watcher}
    patch: |-
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --lease-duration=2m}
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --lease-renew-deadline=90s}
  - target: {kind: Deployment, name: airflow-requeue-webhook}
    patch: |-
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --lease-max-age=2m}
      - {op: add, path: /spec/template/spec/containers/0/args/-, value: --no-leader-release-after=3m}
  - target: {kind: MutatingWebhookConfiguration}
    patch: |-
      - {op: replace, path: /webhooks/0/timeoutSeconds, value: 30}
`

// TestByKustomizeAnInstallationLeavesNothingEither runs what ../../manifests/README.md says. It is alone with the API server.
func TestByKustomizeAnInstallationLeavesNothingEither(t *testing.T) {
	a := newAirflow(t)
	before := inventory(t)
	all := rendered.Folder(t, folder(t), rendered.Overlaid{Resource: "self-signed", Transformers: []string{"wiring"},
		Namespace: a.Namespace, Installation: "by-kustomize", More: patient})
	release := rendered.Folder(t, folder(t), rendered.Overlaid{Resource: "release", Namespace: a.Namespace, Installation: "by-kustomize"})

	a.run(kubectl, "apply", "-k", all)
	programs.UntilStamping(t, a.scheduler)
	a.settle(a.flying("held"))
	a.run(kubectl, "apply", "-k", all) // once more changes nothing
	left := a.held("left")

	a.run(kubectl, "apply", "-k", release)
	a.run(kubectl, "wait", "--for=condition=complete", "--timeout=5m", "job/airflow-requeue-release")
	a.untilReleased(left)
	a.nothingOnPods()
	programs.UntilNotStamping(t, a.scheduler)
	a.run(kubectl, "delete", "-k", release)
	a.run(kubectl, "delete", "-k", all, "--ignore-not-found")
	var different []string
	assert.Eventually(t, func() bool { different = changes(before, inventory(t)); return len(different) == 0 }, world.Patience, time.Second)
	assert.Empty(t, different)
}
