package tidb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

const (
	// MaxRefs is how many task instances one query asks for.
	MaxRefs = 500
	// maxIDLength is the length of Airflow's columns for IDs (models/base.py, ID_LEN), in characters.
	maxIDLength = 250
)

// Lookup reads the rows of task instances, in one query for every 500 of them. One without a row is not in the map.
//
// A ref is looked up by its ID where ByID says so, and by its key otherwise. Of the rows that a key may have since
// Airflow 3.4 only the one of the current try counts, and so it is with IDs: a row that was archived before it ran says
// queued for ever. A key that has several rows even so, in several regions of its run, is only found with the right ID.
func (db *DB) Lookup(
	ctx context.Context, refs []requeue.Ref,
) (map[requeue.Ref]requeue.TaskInstance, error) {
	found, err := db.lookup(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("reading the task instances: %w", db.target.safe(err))
	}
	return found, nil
}

func (db *DB) lookup(ctx context.Context, refs []requeue.Ref) (map[requeue.Ref]requeue.TaskInstance, error) {
	layout := db.found.Load().layout
	keys, ids := distinct(refs, layout)
	byKey, byID := map[requeue.Key][]requeue.TaskInstance{}, map[string][]requeue.TaskInstance{}
	for keys := range slices.Chunk(keys, MaxRefs) {
		choice, args := db.server.byKey([4]string{"dag_id", "task_id", "run_id", layout.index}, keys)
		rows, err := db.read(ctx, layout, choice, args)
		if err != nil {
			return nil, err
		}
		// Strings are compared here once more, exactly: a collation may have found others equal.
		for _, row := range rows {
			byKey[row.Key] = append(byKey[row.Key], row)
		}
	}
	for ids := range slices.Chunk(ids, MaxRefs) {
		choice, args := db.server.byID(ids)
		rows, err := db.read(ctx, layout, choice, args)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			byID[row.ID] = append(byID[row.ID], row)
		}
	}
	found := make(map[requeue.Ref]requeue.TaskInstance, len(refs))
	for _, ref := range refs {
		rows := byKey[ref.Key]
		if layout.byID(ref) {
			rows = byID[normalID(ref.ID)]
		}
		if len(rows) > 1 && !layout.workingSet {
			return nil, errSeveralRows
		}
		if len(rows) > 1 {
			rows = slices.DeleteFunc(slices.Clone(rows), func(row requeue.TaskInstance) bool {
				return row.ID != normalID(ref.ID)
			})
		}
		if len(rows) == 1 {
			found[ref] = rows[0]
		}
	}
	return found, nil
}

var errSeveralRows = errors.New("a key has several rows, as since Airflow 3.4; is Airflow being upgraded?")

// byID says how a ref is looked up. Without an ID in the schema there is only the key.
func (l layout) byID(ref requeue.Ref) bool { return ref.ByID && l.id }

// distinct is what to ask for, each once. It leaves out what no row can have and some server would refuse the whole query
// for: what one pod says of itself must not keep others from being read.
func distinct(refs []requeue.Ref, layout layout) (keys []requeue.Key, ids []string) {
	seenKeys, seenIDs := map[requeue.Key]bool{}, map[string]bool{}
	for _, ref := range refs {
		id := normalID(ref.ID)
		switch {
		case layout.byID(ref) && id != "" && !seenIDs[id]:
			seenIDs[id] = true
			ids = append(ids, id)
		case !layout.byID(ref) && possible(ref.Key) && !seenKeys[ref.Key]:
			seenKeys[ref.Key] = true
			keys = append(keys, ref.Key)
		}
	}
	return keys, ids
}

func possible(key requeue.Key) bool {
	for _, id := range []string{key.DagID, key.TaskID, key.RunID} {
		if !utf8.ValidString(id) || strings.ContainsRune(id, 0) || utf8.RuneCountInString(id) > maxIDLength {
			return false
		}
	}
	return key.MapIndex >= math.MinInt32 && key.MapIndex <= math.MaxInt32
}

// read reads the rows that byKey or byID chooses.
func (db *DB) read(
	ctx context.Context, layout layout, choice string, args []any,
) (read []requeue.TaskInstance, err error) {
	rows, err := db.pool.QueryContext(ctx, db.statement(layout, choice), args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var (
			row                 requeue.TaskInstance
			state, hostname, id sql.NullString
			try, job            sql.NullInt64
			queued              timestamp
		)
		if err := rows.Scan(
			&row.DagID, &row.TaskID, &row.RunID, &row.MapIndex, &state, &try, &hostname, &queued, &job, &id,
		); err != nil {
			return nil, err
		}
		row.State, row.TryNumber, row.Hostname = requeue.State(state.String), int(try.Int64), hostname.String
		row.QueuedAt, row.QueuedByJobID, row.ID = queued.Time, job.Int64, normalID(id.String)
		read = append(read, row)
	}
	return read, rows.Err()
}

func (db *DB) statement(layout layout, choice string) string {
	id, queued := "NULL", "queued_dttm"
	if layout.id {
		id = db.server.text("id")
	}
	if db.target.dialect == SQLite {
		queued = db.server.text(queued)
	}
	if layout.workingSet {
		choice += " AND working_set IS TRUE"
	}
	return fmt.Sprintf("SELECT dag_id, task_id, run_id, %s, state, try_number, hostname, %s, queued_by_job_id, %s "+
		"FROM %s %s", layout.index, queued, id, db.server.table("task_instance"), choice)
}
