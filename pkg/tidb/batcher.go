package tidb

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// DefaultCrowd is how long a query is held up for others while many ask. In a storm each pod is asked for some times a
// second, and nobody's turn comes sooner by a query of his own.
const DefaultCrowd = 100 * time.Millisecond

// crowd is how many calls within Crowd are many: 160 a second, as fifty pods make that are replaced in a second.
const crowd = 16

// DefaultTimeout is how long one query of a Batcher may take.
const DefaultTimeout = 10 * time.Second

// Query is what a Batcher tells of a query that is over.
type Query struct {
	Refs int // how many task instances were asked for
	Rows int // how many of them there are
	Took time.Duration
	Err  error
}

// Batcher turns many reads of one task instance each into few queries, one at a time. A query is sent at once when none is under
// way, and what is asked for meanwhile goes into the next one. While many ask, each query is held up for Crowd, so that their
// number does not grow with theirs. What a caller gets is always from a query that started after the call: decisions rest on it.
type Batcher struct {
	// Timeout is how long one query may take. To be changed before Run only.
	Timeout time.Duration
	// Crowd is how long a query with room is held up while many ask. To be changed before Run only.
	Crowd time.Duration
	// Observe is called after each query, for metrics. To be set before Run only.
	Observe func(Query)

	lookup func(context.Context, []requeue.Ref) (map[requeue.Ref]requeue.TaskInstance, error)
	limit  int
	wake   chan struct{} // holds one element while waiting is not empty

	mu      sync.Mutex
	waiting []*batch         // not started, in order; only the last one has room
	last    [crowd]time.Time // when the last calls were made; a ring
	oldest  int              // of them
	stopped bool
}

// batch is one query: first what is asked for, and once done is closed, its outcome.
type batch struct {
	refs  map[requeue.Ref]bool
	full  chan struct{} // closed when it has no room
	done  chan struct{}
	found map[requeue.Ref]requeue.TaskInstance
	err   error
}

var errStopped = errors.New("reading the task instance: the batcher has stopped")

// NewBatcher makes a Batcher that asks lookup for at most limit task instances at a time (500 where limit is not positive).
// It sends nothing before Run.
func NewBatcher(
	lookup func(context.Context, []requeue.Ref) (map[requeue.Ref]requeue.TaskInstance, error), limit int,
) *Batcher {
	if limit <= 0 {
		limit = MaxRefs
	}
	return &Batcher{Timeout: DefaultTimeout, Crowd: DefaultCrowd, lookup: lookup, limit: limit, wake: make(chan struct{}, 1)}
}

// Get reads one task instance; found says whether it has a row. It blocks until a query that started after the call is
// over, or until ctx is. An error of the query reaches everyone who waits for it.
func (b *Batcher) Get(ctx context.Context, ref requeue.Ref) (task requeue.TaskInstance, found bool, err error) {
	if err := ctx.Err(); err != nil {
		return requeue.TaskInstance{}, false, err
	}
	batch := b.join(ref)
	if batch == nil {
		return requeue.TaskInstance{}, false, errStopped
	}
	select {
	case <-batch.done:
		task, found = batch.found[ref]
		return task, found, batch.err
	case <-ctx.Done():
		return requeue.TaskInstance{}, false, ctx.Err()
	}
}

// join puts a ref into a batch that has not started; nil once the Batcher has stopped.
func (b *Batcher) join(ref requeue.Ref) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil
	}
	b.last[b.oldest] = time.Now()
	b.oldest = (b.oldest + 1) % crowd
	for _, batch := range b.waiting {
		if batch.refs[ref] {
			return batch
		}
	}
	if n := len(b.waiting); n == 0 || len(b.waiting[n-1].refs) == b.limit {
		b.waiting = append(b.waiting, &batch{refs: map[requeue.Ref]bool{}, full: make(chan struct{}), done: make(chan struct{})})
	}
	last := b.waiting[len(b.waiting)-1]
	last.refs[ref] = true
	if len(last.refs) == b.limit {
		close(last.full)
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return last
}

// Run sends the queries until ctx is over. Everyone who waits then gets an error, and so does every later Get.
func (b *Batcher) Run(ctx context.Context) {
	defer b.stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		}
		for ctx.Err() == nil {
			b.gather(ctx)
			batch := b.next()
			if batch == nil {
				break
			}
			b.send(ctx, batch)
		}
	}
}

// gather holds a query up for others while many ask, until it is full.
func (b *Batcher) gather(ctx context.Context) {
	b.mu.Lock()
	var full chan struct{}
	if crowded := time.Since(b.last[b.oldest]) < b.Crowd; crowded && len(b.waiting) > 0 {
		full = b.waiting[0].full
	}
	b.mu.Unlock()
	if full == nil {
		return
	}
	held := time.NewTimer(b.Crowd)
	defer held.Stop()
	select {
	case <-held.C:
	case <-full:
	case <-ctx.Done():
	}
}

// next takes the batch that has waited longest; nobody joins it from here on.
func (b *Batcher) next() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return nil
	}
	next := b.waiting[0]
	b.waiting = b.waiting[1:]
	return next
}

func (b *Batcher) send(ctx context.Context, batch *batch) {
	defer close(batch.done)
	refs := make([]requeue.Ref, 0, len(batch.refs))
	for ref := range batch.refs {
		refs = append(refs, ref)
	}
	ctx, cancel := context.WithTimeout(ctx, b.Timeout)
	defer cancel()
	began := time.Now()
	batch.found, batch.err = b.lookup(ctx, refs)
	if b.Observe != nil {
		b.Observe(Query{Refs: len(refs), Rows: len(batch.found), Took: time.Since(began), Err: batch.err})
	}
}

func (b *Batcher) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	for _, batch := range b.waiting {
		batch.err = errStopped
		close(batch.done)
	}
	b.waiting = nil
}
