package tidb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// slowTable is a table whose every query takes as long as the test wants.
type slowTable struct {
	queries [][]requeue.Ref // as they started
	try     int             // the try number of all rows
	takes   time.Duration
	err     error
}

func (s *slowTable) lookup(ctx context.Context, refs []requeue.Ref) (map[requeue.Ref]requeue.TaskInstance, error) {
	s.queries = append(s.queries, refs)
	try, err := s.try, s.err
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	found := map[requeue.Ref]requeue.TaskInstance{}
	for _, ref := range refs {
		if ref.TaskID != "absent" {
			found[ref] = requeue.TaskInstance{Key: ref.Key, TryNumber: try}
		}
	}
	return found, nil
}

func (s *slowTable) sizes() []int {
	sizes := make([]int, len(s.queries))
	for i, refs := range s.queries {
		sizes[i] = len(refs)
	}
	return sizes
}

func ref(task string) requeue.Ref { return requeue.Ref{Key: requeue.Key{TaskID: task, MapIndex: -1}} }

// answer is what a Get came back with.
type answer struct {
	try   int
	found bool
	err   error
	after time.Duration
}

// bubble is a test of a Batcher that runs over a table whose queries take a second, in a time of its own.
type bubble struct {
	*testing.T

	table   *slowTable
	batcher *Batcher
	stop    context.CancelFunc // ends the Batcher's Run
	told    []Query
}

func inBubble(t *testing.T, name string, test func(*bubble)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			table := &slowTable{takes: time.Second, try: 1}
			b := &bubble{T: t, table: table, batcher: NewBatcher(table.lookup, 0)}
			b.batcher.Observe = func(query Query) { b.told = append(b.told, query) }
			var ctx context.Context
			ctx, b.stop = context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { b.batcher.Run(ctx) })
			test(b)
			b.stop()
			running.Wait()
		})
	})
}

// get calls Get in the background.
func (b *bubble) get(ctx context.Context, task string) func() answer {
	answers := make(chan answer, 1)
	began := time.Now()
	go func() {
		task, found, err := b.batcher.Get(ctx, ref(task))
		answers <- answer{task.TryNumber, found, err, time.Since(began)}
	}()
	return func() answer { return <-answers }
}

func TestBatcher(t *testing.T) {
	inBubble(t, "an idle batcher sends at once", func(b *bubble) {
		assert.Equal(b, answer{1, true, nil, time.Second}, b.get(b.Context(), "a")())
		assert.Equal(b, answer{0, false, nil, time.Second}, b.get(b.Context(), "absent")())
		assert.Equal(b, [][]requeue.Ref{{ref("a")}, {ref("absent")}}, b.table.queries)
	})
	inBubble(t, "a caller never gets the outcome of a query that is under way", func(b *bubble) {
		first := b.get(b.Context(), "a")
		synctest.Wait() // the query has read try 1
		b.table.try = 2
		time.Sleep(900 * time.Millisecond)
		second := b.get(b.Context(), "a")
		assert.Equal(b, answer{1, true, nil, time.Second}, first())
		assert.Equal(b, answer{2, true, nil, 1100 * time.Millisecond}, second())
	})
	inBubble(t, "what is asked for meanwhile goes into one query, once each", func(b *bubble) {
		b.get(b.Context(), "first")
		synctest.Wait()
		var answers []func() answer
		for i := range 300 {
			answers = append(answers, b.get(b.Context(), fmt.Sprint(i%100)))
		}
		for _, answer := range answers {
			assert.True(b, answer().found)
		}
		assert.Equal(b, []int{1, 100}, b.table.sizes())
	})
	inBubble(t, "while many ask, a query is held up for others", func(b *bubble) {
		b.table.takes = time.Millisecond
		for i := range crowd - 1 {
			assert.Equal(b, answer{1, true, nil, time.Millisecond}, b.get(b.Context(), fmt.Sprint(i))())
		}
		next := b.get(b.Context(), "next")
		time.Sleep(DefaultCrowd - time.Millisecond)
		last := b.get(b.Context(), "last")
		assert.Equal(b, answer{1, true, nil, DefaultCrowd + time.Millisecond}, next())
		assert.Equal(b, answer{1, true, nil, 2 * time.Millisecond}, last())
		assert.Equal(b, 2, b.table.sizes()[crowd-1])
		assert.Equal(b, answer{1, true, nil, time.Millisecond}, b.get(b.Context(), "alone again")())
	})
	inBubble(t, "a query that is full is held up for nobody", func(b *bubble) {
		b.get(b.Context(), "first")
		synctest.Wait()
		var last func() answer
		for i := range 500 {
			last = b.get(b.Context(), fmt.Sprint(i))
		}
		assert.Equal(b, answer{1, true, nil, 2 * time.Second}, last())
		assert.Equal(b, []int{1, 500}, b.table.sizes())
	})
	inBubble(t, "a query that is held up goes when it is full", func(b *bubble) {
		b.table.takes = time.Millisecond
		for i := range crowd - 1 {
			b.get(b.Context(), fmt.Sprint(i))()
		}
		for range 2 {
			first := b.get(b.Context(), "first")
			time.Sleep(10 * time.Millisecond)
			var last func() answer
			for i := range 499 {
				last = b.get(b.Context(), fmt.Sprint(i))
			}
			assert.Equal(b, answer{1, true, nil, 11 * time.Millisecond}, first())
			assert.Equal(b, answer{1, true, nil, time.Millisecond}, last())
		}
		assert.Equal(b, []int{500, 500}, b.table.sizes()[crowd-1:])
	})
	inBubble(t, "a query asks for no more than 500", func(b *bubble) {
		b.get(b.Context(), "first")
		synctest.Wait()
		var answers []func() answer
		for i := range 1200 {
			answers = append(answers, b.get(b.Context(), fmt.Sprint(i)))
		}
		for _, answer := range answers {
			assert.True(b, answer().found)
		}
		assert.Equal(b, []int{1, 500, 500, 200}, b.table.sizes())
	})
	inBubble(t, "an error reaches everyone of its batch and nobody else", func(b *bubble) {
		before := b.get(b.Context(), "a")
		synctest.Wait()
		b.table.err = errors.New("the database is down")
		one, other := b.get(b.Context(), "a"), b.get(b.Context(), "b")
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		b.table.err = nil
		after := b.get(b.Context(), "a")
		assert.NoError(b, before().err)
		assert.EqualError(b, one().err, "the database is down")
		assert.EqualError(b, other().err, "the database is down")
		assert.NoError(b, after().err)
	})
	inBubble(t, "a caller who gives up returns at once, and the others get theirs", func(b *bubble) {
		impatient, cancel := context.WithTimeout(b.Context(), 300*time.Millisecond)
		defer cancel()
		one, other := b.get(impatient, "a"), b.get(b.Context(), "a")
		assert.Equal(b, answer{0, false, context.DeadlineExceeded, 300 * time.Millisecond}, one())
		assert.True(b, other().found)
		_, _, err := b.batcher.Get(impatient, ref("b"))
		require.ErrorIs(b, err, context.DeadlineExceeded)
	})
	inBubble(t, "a query that hangs ends after the timeout and does not block the next", func(b *bubble) {
		b.table.takes = time.Hour
		hung := b.get(b.Context(), "a")
		synctest.Wait()
		b.table.takes = time.Second
		next := b.get(b.Context(), "a")
		assert.Equal(b, answer{0, false, context.DeadlineExceeded, DefaultTimeout}, hung())
		assert.Equal(b, answer{1, true, nil, DefaultTimeout + time.Second}, next())
	})
	inBubble(t, "nobody waits for a batcher that has stopped", func(b *bubble) {
		underWay := b.get(b.Context(), "a")
		synctest.Wait()
		waiting := b.get(b.Context(), "b")
		synctest.Wait()
		b.stop()
		require.ErrorIs(b, underWay().err, context.Canceled)
		assert.Equal(b, answer{err: errStopped}, waiting())
		assert.Equal(b, answer{err: errStopped}, b.get(b.Context(), "c")())
		assert.Equal(b, []int{1}, b.table.sizes())
	})
	inBubble(t, "each query is told of", func(b *bubble) {
		b.get(b.Context(), "a")()
		b.get(b.Context(), "absent")()
		b.table.err = errors.New("the database is down")
		b.get(b.Context(), "a")()
		assert.Equal(b, []Query{
			{Refs: 1, Rows: 1, Took: time.Second},
			{Refs: 1, Rows: 0, Took: time.Second},
			{Refs: 1, Rows: 0, Took: time.Second, Err: b.table.err},
		}, b.told)
	})
}

// The property that decisions rest on, under load: what a caller gets was read after the call.
func TestBatcherIsFreshUnderLoad(t *testing.T) {
	var clock atomic.Int64
	batcher := NewBatcher(func(_ context.Context, refs []requeue.Ref) (map[requeue.Ref]requeue.TaskInstance, error) {
		started := int(clock.Add(1))
		found := map[requeue.Ref]requeue.TaskInstance{}
		for _, ref := range refs {
			found[ref] = requeue.TaskInstance{TryNumber: started}
		}
		return found, nil
	}, 10)
	go batcher.Run(t.Context())
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			for range 200 {
				called := int(clock.Add(1))
				task, found, err := batcher.Get(t.Context(), ref(fmt.Sprint(rand.IntN(30))))
				if assert.NoError(t, err) && assert.True(t, found) {
					assert.Greater(t, task.TryNumber, called)
				}
			}
		})
	}
	group.Wait()
}
