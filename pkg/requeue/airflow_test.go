package requeue

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParseAirflow(t *testing.T) {
	for _, c := range []struct {
		name, label string
		want        Airflow
		ok          bool
	}{
		{"a release", "2.10.5", Airflow{2, 10, 5}, true},
		{"a release candidate", "3.0.0rc1", Airflow{3, 0, 0}, true},
		{"a beta", "3.4.0b2", Airflow{3, 4, 0}, true},
		{"a development version", "3.4.0.dev0", Airflow{3, 4, 0}, true},
		{"a vendor's build", "2.10.3-composer", Airflow{2, 10, 3}, true},
		{"a vendor's numbered build", "2.10.3-3", Airflow{2, 10, 3}, true},
		{"a vendor's build whose + was taken out", "2.10.3astro.1-0123abcde", Airflow{2, 10, 3}, true},
		{"numbers beyond nine", "12.34.56", Airflow{12, 34, 56}, true},
		{"nothing", "", Airflow{}, false},
		{"a word", "main", Airflow{}, false},
		{"two numbers", "2.10", Airflow{}, false},
		{"a sign", "2.-1.3", Airflow{}, false},
		{"a letter before the numbers", "v2.10.5", Airflow{}, false},
		{"a number beyond any", "2.99999999999999999999.1", Airflow{}, false},
		{"a date", "20261101", Airflow{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ParseAirflow(c.label)
			assert.Equal(t, c.want, got)
			assert.Equal(t, c.ok, ok)
		})
	}
}

func TestAirflowsAreInOrder(t *testing.T) {
	ordered := []Airflow{{1, 99, 99}, {2, 9, 99}, {2, 10, 0}, {2, 10, 3}, OldestAirflow(), {2, 10, 5}, {2, 11, 0}, {3, 0, 0}}
	for i, a := range ordered {
		for j, b := range ordered {
			assert.Equal(t, i < j, a.Before(b), "%s before %s", a, b)
		}
	}
}
