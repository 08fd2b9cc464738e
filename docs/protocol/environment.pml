/* What acts on the pods beside us: the kubelet, Airflow, time. Part of protocol.pml. */

/* The kubelet, and whoever deletes pods. */
proctype kubelet() {
	byte i;
end:
	do
	:: atomic { (pending(pod[O]) && !has(pod[O], GATED)) -> d_step { pod[O] = pod[O] | RUNNING; changed(O) } }
	:: atomic { (pending(pod[R]) && !has(pod[R], GATED)) -> d_step { pod[R] = pod[R] | RUNNING; changed(R) } }
	:: atomic { has(pod[O], RUNNING) -> d_step { pod[O] = (pod[O] & ~RUNNING) | FAILED; changed(O) } }
	:: atomic { has(pod[R], RUNNING) -> d_step { pod[R] = (pod[R] & ~RUNNING) | FAILED; changed(R) } }
#ifdef LIFE
	:: atomic { has(pod[O], RUNNING) && !began[O] && !adopting -> i = O; goto claim }
#endif
	:: atomic { has(pod[R], RUNNING) && !began[R] && !adopting -> i = R; goto claim }
	:: atomic { row == RUNS && host < N && has(pod[host], RUNNING) && !adopting -> i = host;
		if
		:: row = OVER
#ifdef DEFERRAL
		:: queueing == 1 -> row = SCHEDULED
#endif
		fi;
		d_step { pod[i] = (pod[i] & ~RUNNING) | SUCCEEDED; changed(i); i = 0 } }
#ifdef EVICT
	:: atomic { has(pod[O], EXISTS) && !has(pod[O], DEL) && has(pod[O], HELD) -> d_step { pod[O] = pod[O] | DEL; changed(O) } }
#endif
	od;
claim:
	atomic {
		assert(!(i == R && began[O]));  /* the task starts once */
		began[i] = 1;
		if
		:: row == QUEUED && sameTry -> row = RUNS; host = i; look()
		:: else -> d_step { pod[i] = (pod[i] & ~RUNNING) | FAILED; changed(i) }
		fi;
		i = 0
	};
	goto end
}

/* The living executor, and the scheduler around it: a failure that it sees, and the pod of a later queueing. */
inline tell(k) {
	d_step {
		told[k] = 1;
		assert(!(told[O] && told[R]));  /* one end is told of a queueing */
		if :: row == QUEUED || row == RUNS -> row = OVER :: else fi;
		pod[k] = pod[k] | DONE;
		changed(k)
	}
}

proctype executor() {
end:
	do
	:: atomic { unseen(O) && !adopting -> tell(O) }
	:: atomic { unseen(R) && !adopting -> tell(R) }
	:: atomic { row == SCHEDULED -> d_step { row = QUEUED; queueing = 2; jobID = scheduler; host = NOBODY; look() } }
	:: atomic { row == QUEUED && queueing == 2 && !nExists -> d_step { nExists = 1; look() } }
	:: atomic { nExists && row == QUEUED -> d_step { row = (N_RUNS -> RUNS : OVER); host = N; look() } }
	:: atomic { row == RUNS && host == N -> d_step { row = OVER; nOver = 1; look() } }
	od
}

/*
 * KubernetesExecutor.try_adopt_task_instances: list, patch by name, commit the row or reset it. The scheduler holds the row's
 * lock meanwhile, and sees no events: nobody else changes the row while `adopting`, but reads of it see what it was.
 */
proctype adopter() {
	bool o, r, ok;
	atomic { (row == QUEUED || row == RUNS) && queueing == 1 -> scheduler = 2; adopting = 1; look() };
	d_step {
		o = (has(pod[O], EXISTS) && attached(pod[O]) && label(pod[O]) == 1 && !has(pod[O], SUCCEEDED));
		r = (has(pod[R], EXISTS) && attached(pod[R]) && label(pod[R]) == 1 && !has(pod[R], SUCCEEDED))
	};
	if
	:: o -> d_step { ok = has(pod[O], EXISTS); if :: ok -> pod[O] = (pod[O] & ~WORKER) | worker(2); changed(O) :: else fi }
	:: r -> d_step { ok = has(pod[R], EXISTS); missed = missed || neverCommitted(pod[R]); /* another pod, of the same name */ if :: ok -> pod[R] = (pod[R] & ~WORKER) | worker(2); changed(R) :: else fi }
	:: !o && !r
	fi;
	d_step {
		if
		:: ok -> jobID = 2
		:: else -> sameTry = 0; row = SCHEDULED
		fi;
		adopting = 0; o = 0; r = 0; ok = 0;
		look()
	}
}

/* KubernetesExecutor.revoke_task, for a task that is stuck in queued. */
proctype revoker() {
	byte i = NOBODY;
	atomic { row == QUEUED && queueing == 1 && jobID == scheduler && !adopting ->
		if
		:: label(pod[O]) == scheduler -> i = O
		:: label(pod[R]) == scheduler -> i = R
		:: label(pod[O]) != scheduler && label(pod[R]) != scheduler
		fi
	};
	if
	:: i != NOBODY ->
		d_step { if :: has(pod[i], EXISTS) -> pod[i] = (pod[i] & ~HELD) | REVOKED; revoked = 1; changed(i) :: else fi };
		d_step { if :: has(pod[i], EXISTS) -> pod[i] = pod[i] | DEL; changed(i) :: else fi; i = NOBODY }
	:: else
	fi;
	d_step { if :: row == QUEUED && queueing == 1 -> row = SCHEDULED; look() :: else fi }
}

/* Time goes by. */
proctype clock() { d_step { late = 1; look() } }
