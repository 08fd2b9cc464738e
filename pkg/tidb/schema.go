package tidb

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Shape is what a table task_instance looks like, named after the first Airflow that had it.
type Shape string

// The shapes that are understood.
const (
	// Shape210 has one row per key, which is its primary key.
	Shape210 Shape = "2.10"
	// Shape30 has one row per key, and a UUID that is new with every try as its primary key.
	Shape30 Shape = "3.0"
	// Shape34 has one row per try, of which working_set marks the current one, and calls map_index region_index. It was
	// read off Airflow 3.4.0b2: unverified against a final release.
	Shape34 Shape = "3.4"
)

// Schema is what was found in the database, for messages.
type Schema struct {
	Dialect  Dialect
	Shape    Shape
	Revision string   // alembic's, such as d2f4e1b3c5a7 of Airflow 3.3; empty where it cannot be read; for messages only
	Warnings []string // what is not as it should be but does no harm; worth a line in the log each
}

func (s Schema) String() string {
	shape, revision := string(s.Shape), s.Revision
	if s.Shape == Shape34 {
		shape += ", known from its beta only: unverified"
	}
	switch release := releaseOf(s.Revision); {
	case s.Revision == "":
		revision = "unknown"
	case release == "":
		revision += ", of no release known here"
	default:
		revision += ", of Airflow " + release
	}
	return fmt.Sprintf("%s, task_instance as since Airflow %s (revision %s)", s.Dialect, shape, revision)
}

// releaseOf names the releases that leave a revision in alembic_version, as they say themselves (airflow/utils/db.py,
// _REVISION_HEADS_MAP); empty where none is known to.
func releaseOf(revision string) string {
	switch revision {
	case "22ed7efa9da2":
		return "2.10.0 to 2.10.2"
	case "5f2621c13b39":
		return "2.10.3 to 2.11"
	case "29ce7909c52b":
		return "3.0.0 to 3.0.2"
	case "fe199e1abd77":
		return "3.0.3 to 3.0.6"
	case "cc92b33c6709":
		return "3.1.0 to 3.1.7"
	case "509b94a1042d":
		return "3.1.8"
	case "1d6611b6ab7c":
		return "3.2"
	case "d2f4e1b3c5a7":
		return "3.3"
	case "9cffe90fa0c0":
		return "3.4.0b2"
	default:
		return ""
	}
}

// layout is what queries need to know of task_instance.
type layout struct {
	index      string // the column that tells mapped task instances apart
	id         bool   // rows have a UUID
	workingSet bool   // one key may have several rows
}

func (l layout) shape() Shape {
	switch {
	case l.workingSet:
		return Shape34
	case l.id:
		return Shape30
	default:
		return Shape210
	}
}

// detect finds the layout by its columns: a version number says less, since migrations are one step each. The error
// names what is missing.
func detect(columns []string, revision string) (layout, error) {
	if len(columns) == 0 {
		return layout{}, errors.New("finding task_instance: there is no such table that the user of the connection URL can " +
			"see; is it the database of Airflow, has `airflow db migrate` been run, may the user read the table, " +
			"and is its schema in the search_path of the user?")
	}
	found := layout{
		index:      "map_index",
		id:         slices.Contains(columns, "id"),
		workingSet: slices.Contains(columns, "working_set"),
	}
	var missing []string
	want := func(column, why string) {
		if !slices.Contains(columns, column) {
			missing = append(missing, column+why)
		}
	}
	for _, column := range []string{
		"dag_id", "task_id", "run_id", "state", "try_number", "hostname", "queued_dttm", "queued_by_job_id",
	} {
		want(column, "")
	}
	// Before it, try_number of a queued row was one less.
	want("executor", " (since Airflow 2.10)")
	if slices.Contains(columns, "region_index") {
		found.index = "region_index"
		want("working_set", " (beside region_index)")
	} else {
		want("map_index", " (or region_index)")
	}
	if found.workingSet {
		want("id", " (beside working_set)")
	}
	if len(missing) > 0 {
		if revision == "" {
			revision = "unknown"
		}
		return layout{}, fmt.Errorf("understanding task_instance: it has no column %s; known are the tables of Airflow 2.10 "+
			"to 3.3 and of 3.4's beta, and alembic's revision of this one is %s; a newer Airflow may need a newer airflow-requeue",
			strings.Join(missing, ", "), revision)
	}
	return found, nil
}
