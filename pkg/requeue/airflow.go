package requeue

import (
	"fmt"
	"slices"
)

// Airflow is a release of Airflow, without what makes it a pre-release or a vendor's build of it.
type Airflow struct{ Major, Minor, Patch int }

// OldestAirflow is the first that came with a cncf.kubernetes provider (10.0.1) whose executor ignores a held pod.
func OldestAirflow() Airflow { return Airflow{2, 10, 4} }

// ParseAirflow reads a value of LabelAirflowVersion: airflow.version with '-' for '+' (the provider's pod_generator.py), such
// as 2.10.5, 3.0.0rc1 or 2.10.3-composer.
func ParseAirflow(label string) (a Airflow, ok bool) {
	n, err := fmt.Sscanf(label, "%d.%d.%d", &a.Major, &a.Minor, &a.Patch)
	if err != nil || n != 3 || min(a.Major, a.Minor, a.Patch) < 0 {
		return Airflow{}, false
	}
	return a, true
}

// Before reports whether a is older. A pre-release counts as its release.
func (a Airflow) Before(other Airflow) bool {
	return slices.Compare([]int{a.Major, a.Minor, a.Patch}, []int{other.Major, other.Minor, other.Patch}) < 0
}

func (a Airflow) String() string { return fmt.Sprintf("%d.%d.%d", a.Major, a.Minor, a.Patch) }
