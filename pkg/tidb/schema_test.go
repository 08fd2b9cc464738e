package tidb

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDetect(t *testing.T) {
	airflow2 := []string{
		"dag_id", "task_id", "run_id", "map_index", "state", "try_number", "hostname", "queued_dttm", "queued_by_job_id",
		"executor", "external_executor_id",
	}
	airflow3 := append(slices.Clone(airflow2), "id")
	airflow34 := append(without(airflow3, "map_index"), "region_index", "region_id", "working_set", "archived_reason")
	for name, c := range map[string]struct {
		columns []string
		layout  layout
		shape   Shape
	}{
		"Airflow 2.10":                 {airflow2, layout{"map_index", false, false}, Shape210},
		"Airflow 3.0":                  {airflow3, layout{"map_index", true, false}, Shape30},
		"Airflow 3.4":                  {airflow34, layout{"region_index", true, true}, Shape34},
		"in the middle of a migration": {append(slices.Clone(airflow3), "working_set"), layout{"map_index", true, true}, Shape34},
	} {
		got, err := detect(c.columns, "")
		require.NoError(t, err, name)
		assert.Equal(t, c.layout, got, name)
		assert.Equal(t, c.shape, got.shape(), name)
	}
	const known = "; known are the tables of Airflow 2.10 to 3.3 and of 3.4's beta, and alembic's revision of this one is " +
		"abc123; a newer Airflow may need a newer airflow-requeue"
	for missing, columns := range map[string][]string{
		"executor (since Airflow 2.10)":       without(airflow2, "executor"),
		"queued_dttm, queued_by_job_id":       without(airflow3, "queued_dttm", "queued_by_job_id"),
		"map_index (or region_index)":         without(airflow3, "map_index"),
		"working_set (beside region_index)":   without(airflow34, "working_set"),
		"id (beside working_set)":             without(airflow34, "id"),
		"run_id, map_index (or region_index)": without(airflow2, "run_id", "map_index"),
	} {
		_, err := detect(columns, "abc123")
		assert.EqualError(t, err, "understanding task_instance: it has no column "+missing+known)
	}
	_, err := detect(nil, "")
	require.ErrorContains(t, err, "there is no such table")
}

func without(columns []string, names ...string) []string {
	return slices.DeleteFunc(slices.Clone(columns), func(column string) bool { return slices.Contains(names, column) })
}

func TestASchemaIsNamedByWhatIsKnownOfIt(t *testing.T) {
	for _, c := range []struct {
		schema Schema
		want   string
	}{
		{Schema{Dialect: PostgreSQL, Shape: Shape30, Revision: "d2f4e1b3c5a7"},
			"PostgreSQL, task_instance as since Airflow 3.0 (revision d2f4e1b3c5a7, of Airflow 3.3)"},
		{Schema{Dialect: SQLite, Shape: Shape30, Revision: "abc123"},
			"SQLite, task_instance as since Airflow 3.0 (revision abc123, of no release known here)"},
		{Schema{Dialect: MySQL, Shape: Shape210},
			"MySQL, task_instance as since Airflow 2.10 (revision unknown)"},
		{Schema{Dialect: PostgreSQL, Shape: Shape34, Revision: "9cffe90fa0c0"},
			"PostgreSQL, task_instance as since Airflow 3.4, known from its beta only: unverified " +
				"(revision 9cffe90fa0c0, of Airflow 3.4.0b2)"},
		{Schema{Dialect: PostgreSQL, Shape: Shape34, Revision: "abc123"}, // of the final 3.4, perhaps
			"PostgreSQL, task_instance as since Airflow 3.4, known from its beta only: unverified " +
				"(revision abc123, of no release known here)"},
	} {
		assert.Equal(t, c.want, c.schema.String())
	}
}
