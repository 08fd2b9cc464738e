/*
 * The protocol of airflow-requeue, as a model for spin: watchers, a sweep, Airflow and a kubelet act on the pods of one task
 * instance. README.md, beside this file, says how to read it, what is bounded, and what was checked.
 *
 * O is the pod that Airflow made, R its replacement, N the pod of a later queueing. A write to O or R is one transition, refused
 * when the pod is no longer the version that was decided on. Reads are transitions of their own: what was read may be
 * outdated when it is used.
 */
#ifndef CRASHES
#define CRASHES 0   /* how often a watcher may lose all that it knows, at any point */
#endif
#ifndef WATCHERS
#define WATCHERS 1  /* 2: both believe that they lead; either may pause between any two transitions */
#endif
#ifndef N_RUNS
#define N_RUNS 0    /* 1: N's run takes time */
#endif
#ifndef START
#define START 0     /* FAILED: its life before its end is left out */
#endif
#ifndef REFUSALS
#define REFUSALS 0  /* how many creates the API server may refuse */
#endif

/* Faults to plant, to see that they are found: -DFAULT=n. */
#define NO_MARK            1  /* an undo lifts without marking the old pod first */
#define NO_LIVE_LIST       2  /* an undo takes the informer's word that there is no replacement */
#define NO_LIVE_READ       3  /* a commit does not look at the old pod */
#define NO_GATE            4  /* a replacement is created without its scheduling gate */
#define NO_SECOND_ROW_READ 5  /* a replacement is ungated without a look at the row */
#define NO_LIFT_GUARD      6  /* a lift is not guarded by resourceVersion */
#define NO_ROW_24          7  /* a pod is given to the row's scheduler while an adoption is under way */
#define NO_LINGER          8  /* the hold of a terminating pod goes in one patch with its finalizer */
#define NO_ROW_2_IN_SWEEP  9  /* the sweep releases a replacement whose predecessor is still tracked */
#ifndef FAULT
#define FAULT 0
#endif
#define PLANT(fault) (FAULT == fault)

#define O 0
#define R 1
#define N 2
#define NOBODY 3

/* A pod is an int: flags, and two scheduler job ids. */
#define EXISTS      1
#define TRACKED     2      /* label tracked, and the finalizer */
#define HELD        4      /* airflow_pod_revoked=requeue-hold */
#define REVOKED     8      /* airflow_pod_revoked=True: Airflow's own */
#define DONE       16      /* airflow_executor_done=True */
#define DETACHED   32
#define UNDOING    64
#define DISCARDED 128
#define GATED     256
#define COMMITTED 512
#define SUPERSEDED 1024    /* the reason of a deletion, recorded before it */
#define DEL       2048     /* deletionTimestamp */
#define RUNNING   4096     /* has a node; without it and without an end: Pending */
#define FAILED    8192
#define SUCCEEDED 16384
#define worker(id)       ((id) << 15)  /* label airflow-worker */
#define remembered(id)   ((id) << 17)  /* the same, in the annotation of a detach */
#define WORKER     worker(3)
#define REMEMBERED remembered(3)

#define has(p, flags)  (((p) & (flags)) != 0)
#define label(p)       (((p) >> 15) & 3)
#define Worker(p)      (label(p) -> label(p) : (((p) >> 17) & 3))   /* requeue.Worker */
#define attached(p)    (label(p) != 0 && !has(p, DONE))             /* requeue.Attached */
#define ended(p)       (has(p, FAILED|SUCCEEDED) || (has(p, DEL) && !has(p, RUNNING)))  /* requeue.Ended */
#define pending(p)     (has(p, EXISTS) && !has(p, RUNNING) && !ended(p))
#define mayRun(p)      (has(p, EXISTS) && !has(p, GATED) && !ended(p))
#define reattached(p)  (has(p, DETACHED) && label(p) != 0)
#define outOfSight(p)  (has(p, DETACHED) && label(p) == 0 && !has(p, UNDOING))  /* rules_gone.go */
#define neverCommitted(p) (has(p, EXISTS) && has(p, GATED) && !has(p, COMMITTED))

#define NEW_REPLACEMENT (EXISTS|TRACKED|HELD|GATED * !PLANT(NO_GATE))  /* requeue.Sealer.Replacement */

int pod[2];

/* The row of task_instance. */
mtype = { QUEUED, RUNS, OVER, SCHEDULED };
mtype row = QUEUED;
byte queueing = 1;
byte jobID = 1;       /* queued_by_job_id */
byte host = NOBODY;   /* which pod the task runs or ran in */
bool sameTry = 1;     /* a reset begins another try */

byte scheduler = 1;   /* the job id of the one that lives */
bool adopting;        /* its adoption has not come to its end */
bool late;            /* row 29: a replacement could not start in time any more */
bool nExists; bool nOver;
byte refusals = REFUSALS;
byte crashes = CRASHES;
byte leaders = WATCHERS;

/* What happened, for the assertions. */
bool told[2];         /* Airflow was told that the pod failed */
bool began[2];        /* the task's process asked for its task in this pod */
bool revoked;         /* Airflow has revoked a pod: what runs in it all the same is Airflow's to miss */
bool missed;          /* R was reported to a dead scheduler between the list and the commit of an adoption: see README */
bool leftBeforeCommit;/* the row had left queueing 1 before R was committed */

/* stale[i] has a bit for each reader whose copy of pod i is not the newest; due[w] one for each pod that w has to look at. */
byte stale[2] = 7;
byte due[3] = 3;
#define look() due[0] = 3; due[1] = 3; due[2] = 3

/* Whether the executor has still to see the pod's end: it has 3 s for it. */
#define unseen(i) (has(pod[i], EXISTS) && has(pod[i], FAILED) && !has(pod[i], HELD|REVOKED|DONE) && label(pod[i]) == scheduler)
#define gone(p) (has(p, DEL) && !has(p, TRACKED|RUNNING))

/* Every change of a pod comes through here. */
inline changed(k) {
	if
	:: gone(pod[k]) && !unseen(k) -> pod[k] = 0
	:: else
	fi;
	stale[k] = 7;
	look();
	assert(!(attached(pod[O]) && attached(pod[R])));     /* never two pods with airflow-worker */
	assert(!(mayRun(pod[O]) && mayRun(pod[R])));         /* never two pods that may run */
	assert(!(told[O] && mayRun(pod[R])))                 /* no failure is told of a pod whose replacement may run */
}

#define old(me, i) has(stale[i], 1 << me)

/* One guarded request of pkg/watcher/writes.go. p becomes what it returned. */
inline write(w, k, copy, clear, set) {
	d_step {
		ok = !old(w, k);
		if
		:: ok ->
			pod[k] = (pod[k] & ~(clear)) | (set);
			if :: gone(pod[k]) -> pod[k] = 0 :: else fi; /* in one event: what it showed last is not seen */
			changed(k);
			copy = pod[k];
			stale[k] = stale[k] & ~(1 << w)
		:: else
		fi
	}
}

inline read(w, k, copy) { copy = pod[k]; stale[k] = stale[k] & ~(1 << w) }

#define LIFTED(p) (HELD|DETACHED|UNDOING|REMEMBERED|DONE * has(p, DETACHED)|TRACKED * (!has(p, DEL) || PLANT(NO_LINGER)))

mtype = { UNDECIDED, WAIT, MARK, LIST, SUPERSEDE, DELETE, UNGATE, RELEASE, REPORT, MARKFAILED, DETACH, ATTACH, CREATE, COMMIT,
	DISCARD, STRIP };
mtype = { NO, FORNOW, FORGOOD };

#define RULE(condition, action) if :: act == UNDECIDED && (condition) -> act = action :: else fi

#define RULE2(condition, action) if :: (condition) -> act = action :: else fi

/* pkg/requeue/decide.go: the table, on a copy p of pod i, a copy s of its sibling and the row as it is now. */
inline decide() {
	d_step {
		act = UNDECIDED;
		thisQ = (row == QUEUED && queueing == 1);
		here = ((row == RUNS || row == OVER) && host == i);
		rowWorker = ((thisQ || here) -> jobID : 0);
		/* 2 */  RULE(i == R && has(s, TRACKED), WAIT);
		/* 4 */  RULE(has(p, DISCARDED), STRIP);
		         RULE(!has(p, HELD|REVOKED) && has(p, DEL) && unseen(i), WAIT);
		         RULE(!has(p, HELD|REVOKED), STRIP);
		/* 5 */  RULE(has(p, REVOKED), STRIP);
		/* 7a */ RULE(i == R && ended(p) && !has(p, COMMITTED) && has(p, GATED|SUPERSEDED), DISCARD);
		/* 7b */ RULE(i == O && ended(p) && has(s, COMMITTED) && has(s, TRACKED) && reattached(p) && label(s) != label(p), COMMIT);
		         RULE(i == O && ended(p) && has(s, EXISTS) && !outOfSight(p), DETACH);
		         RULE(i == O && ended(p) && has(s, EXISTS) && !has(s, COMMITTED), COMMIT);
		         RULE(i == O && ended(p) && has(s, EXISTS), STRIP);
		/* 10 */ RULE(has(p, GATED) && !ended(p) && !has(p, DEL) && (!has(p, COMMITTED) || !thisQ && !PLANT(NO_SECOND_ROW_READ) || late), DELETE);
		/* 11 */ RULE(has(p, GATED) && !ended(p) && !has(p, DEL), UNGATE);
		/* 12 */ RULE(i == R && pending(p) && !has(p, DEL) && !thisQ && !here, DELETE);
		/* 13 */ RULE(has(p, RUNNING) && here && row == RUNS, RELEASE);
		/* 14, 15, 19 */ RULE(!ended(p), WAIT);
		/* 20 */ if :: act == UNDECIDED && has(p, SUCCEEDED) && !has(p, DEL|DETACHED) -> act = RELEASE; rowWorker = 0 :: else fi;
		/* 22 */ RULE(row == RUNS && host == N && !nOver, DISCARD);
		         RULE(row == RUNS && host == 1 - i && !ended(pod[1-i]) && attached(pod[1-i]) && !has(pod[1-i], REVOKED), DISCARD);
		/* 23 */ RULE(sameTry && !thisQ && (row == QUEUED || row == SCHEDULED) && nExists, DISCARD);
		         RULE(sameTry && !thisQ && (row == QUEUED || row == SCHEDULED), (over -> REPORT : WAIT));
		/* 25 */ RULE(!thisQ && has(p, SUCCEEDED), RELEASE);
		         RULE(!thisQ, REPORT);
		/* 28 */ RULE(i == R, REPORT);
		/* 29 */ RULE(late, REPORT);
		/* 30 */ RULE(refused == FORGOOD, REPORT);
		/* 31 */ RULE(refused == FORNOW && has(p, DETACHED), ATTACH);
		         RULE(refused == FORNOW && !over, WAIT);
		         RULE(!outOfSight(p), DETACH);
		         RULE(true, CREATE);
		/* prepare */
		if
		:: (act == RELEASE || act == REPORT || act == ATTACH || act == UNGATE) ->
			wk = (rowWorker -> rowWorker : Worker(p));
			then = act; during = adopting;
			if
			:: rowWorker && Worker(p) && rowWorker != Worker(p) && adopting && !PLANT(NO_ROW_24) -> act = WAIT
			:: else ->
				if
				:: act != UNGATE && has(p, DETACHED) && !has(p, UNDOING) && !PLANT(NO_MARK) -> act = MARK
				:: act != UNGATE && has(p, DETACHED) && (has(p, UNDOING) || PLANT(NO_MARK)) -> act = LIST
				:: else
				fi;
				RULE2(act == REPORT && !has(p, FAILED|SUCCEEDED) && (ended(p) || has(p, GATED)), MARKFAILED)
			fi
		:: act == DELETE && !has(p, SUPERSEDED) -> act = SUPERSEDE
		:: act == DETACH -> wk = Worker(p)
		:: act == COMMIT -> wk = (label(s) && !has(s, COMMITTED) -> label(s) : Worker(p))
		:: else
		fi;
		if :: act == WAIT && refused == FORNOW -> due[me] = due[me] | (1 << i) :: else fi;
		if :: act != WAIT && refused == FORNOW && over && !has(p, DETACHED) -> refused = NO :: else fi;
		over = 0; thisQ = 0; here = 0; rowWorker = 0
	}
}

/* A crash loses what the process knows; with a sweep about, a process may also be gone for good. */
#define CRASH :: crashes > 0 -> crashes--; goto restart
#ifdef SWEEP
#define LAST :: true -> leaders--; look(); goto dead
#else
#define LAST
#endif

inline forget() {
	i = 0; p = 0; s = 0; act = UNDECIDED; then = UNDECIDED; wk = 0; ok = 0; during = 0;
	stale[O] = stale[O] | (1 << me); stale[R] = stale[R] | (1 << me)
}

/* pkg/watcher/sync.go: decide, write once, decide again on what the write returned. */
proctype watcher(byte me) {
	byte i; int p, s;
	mtype act = UNDECIDED; mtype then = UNDECIDED; mtype refused = NO;
	byte wk, rowWorker; bool over, thisQ, here, ok, during;  /* during: decided while an adoption was under way */

restart:
	refused = NO;
	due[me] = 3;
idle:
	atomic {
		forget();
		goto end
	};
end:
	/* sync: both copies come from one informer, and so are of one moment. */
	atomic {
		if
		:: has(due[me], 1) -> i = O
		:: has(due[me], 2) -> i = R
		LAST
		fi;
		due[me] = due[me] & ~(1 << i);
		if
		:: !has(pod[i], TRACKED) -> i = 0; goto end
		:: else -> d_step { read(me, i, p); read(me, 1-i, s) }
		fi
	};
step:
	/* gather and decide: the sibling as the informer has it by now, or as it was. */
	atomic {
		if
		:: i == O && old(me, R) -> read(me, R, s)
		:: true
		fi;
		if :: over = 0 :: over = 1 fi;
		decide();
		if :: act == WAIT -> goto idle :: else fi
	};
apply:
	atomic {
		if
		CRASH
		LAST
		:: act == LIST -> /* live; then row 7b, or what was decided */
			d_step {
				if :: !PLANT(NO_LIVE_LIST) -> read(me, R, s) :: else fi;
				if
				:: has(s, EXISTS) -> act = DETACH; wk = Worker(p)
				:: else ->
					act = then;
					RULE2(act == REPORT && !has(p, FAILED|SUCCEEDED), MARKFAILED)
				fi;
				then = UNDECIDED
			};
			goto apply
		:: act == CREATE ->
			if
			:: refusals > 0 && !has(pod[R], EXISTS) -> refusals--;
				if :: refused = FORNOW :: refused = FORGOOD fi
			:: !has(pod[R], EXISTS) -> d_step { pod[R] = NEW_REPLACEMENT; changed(R); read(me, R, s) }
			:: has(pod[R], EXISTS) -> read(me, R, s)
			fi;
			ok = 1
		:: act == COMMIT -> /* takeOver: the old pod, live, first */
			ok = !old(me, O) || PLANT(NO_LIVE_READ);
			if :: ok -> goto commit :: else fi
		:: act == MARK ->       write(me, i, p, 0, UNDOING)
		:: act == SUPERSEDE ->  write(me, i, p, 0, SUPERSEDED)
		:: act == DELETE ->     write(me, i, p, 0, DEL)
		:: act == UNGATE ->
			write(me, i, p, GATED|WORKER, worker(wk));
			assert(!ok || !leftBeforeCommit)
		:: act == RELEASE || act == REPORT ->
			if :: PLANT(NO_LIFT_GUARD) -> stale[i] = stale[i] & ~(1 << me) :: else fi;
			assert(old(me, i) || !has(pod[i], REVOKED)); /* what Airflow revoked is not released by us */
			write(me, i, p, LIFTED(p)|WORKER, worker(wk));
			missed = missed || ok && i == R && during && wk != scheduler
		:: act == MARKFAILED -> write(me, i, p, 0, FAILED)
		:: act == DETACH ->     write(me, i, p, WORKER|UNDOING|REMEMBERED, DONE|DETACHED|remembered(wk))
		:: act == ATTACH ->     write(me, i, p, WORKER|DETACHED|UNDOING|REMEMBERED|DONE, worker(wk))
		:: act == DISCARD ->    write(me, i, p, WORKER, DONE|DISCARDED)
		:: act == STRIP ->      write(me, i, p, TRACKED, 0)
		fi;
		act = UNDECIDED; then = UNDECIDED; wk = 0; during = 0;
		if
		:: ok && has(p, TRACKED) -> ok = 0; goto step
		:: ok -> goto idle
		:: else -> p = 0
		fi
	};
reread:
	atomic {
		read(me, i, p);
		if
		:: has(p, TRACKED) -> goto step
		:: else -> goto idle
		fi
	};
commit:
	atomic {
		if
		CRASH
		LAST
		:: true
		fi;
		write(me, R, s, WORKER, COMMITTED|worker(wk));
		if
		:: !ok -> due[me] = due[me] | (1 << O); goto idle /* errLater */
		:: else -> leftBeforeCommit = leftBeforeCommit || queueing == 2; act = UNDECIDED; wk = 0; ok = 0; goto step
		fi
	};
dead:
	atomic { forget(); due[me] = 0; refused = NO };
enddead:
	false
}

#include "sweep.pml"
#include "environment.pml"

init {
	atomic {
		pod[O] = EXISTS|TRACKED|HELD|worker(1)|START;
		run watcher(0);
#if WATCHERS > 1
		run watcher(1);
#endif
		run kubelet(); run executor();
#ifdef SWEEP
		run sweep();
#endif
#ifdef ADOPTION
		run adopter();
#endif
#ifdef REVOCATION
		run revoker();
#endif
#ifdef LATE
		run clock()
#endif
	};
	/* All is over. */
	timeout;
	assert(!has(pod[O], TRACKED) && !has(pod[R], TRACKED));           /* no finalizer is left */
	assert(!(attached(pod[O]) && has(pod[O], HELD)));                  /* no attached pod keeps a hold */
	assert(!(attached(pod[R]) && has(pod[R], HELD)));
	assert(row == OVER || row == RUNS && revoked || missed)                                               /* nothing is lost */
}
