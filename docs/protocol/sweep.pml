/* pkg/watcher/release.go: release --all, and the webhook when nobody leads. */
#define sweeper 2
mtype = { DROP, UNDO, LIFT };

proctype sweep() {
	int x[2];      /* the list that the pass began with, and what became of it */
	byte i, n, wk;
	bool ok, left;
	mtype act = UNDECIDED;

pass:
	atomic {
		d_step {
			due[sweeper] = 0; left = 0; n = 0;
			read(sweeper, O, x[O]); read(sweeper, R, x[R]);
			i = (neverCommitted(x[R]) -> R : O)
		}
	};
release:
	atomic {
		act = UNDECIDED; ok = 0; wk = Worker(x[i]);
		d_step {
			RULE(!has(x[i], TRACKED), WAIT);
			RULE(has(x[i], DISCARDED|REVOKED), STRIP);
			RULE(!has(x[i], HELD) && has(x[i], DEL) && unseen(i), WAIT);
			RULE(!has(x[i], HELD), STRIP);
			RULE(i == R && neverCommitted(x[R]), DROP);
			RULE(i == R && has(x[O], TRACKED) && !PLANT(NO_ROW_2_IN_SWEEP), WAIT);  /* as row 2 */
			RULE(i == O && has(x[O], DETACHED), UNDO);
			RULE(true, LIFT)
		};
		if
		:: act == WAIT -> goto passed
		:: act == STRIP -> goto strip
		:: act == LIFT -> goto lift
		:: act == DROP ->
			if
			:: label(x[R]) && has(x[O], TRACKED) && has(x[O], DETACHED) ->
				write(sweeper, O, x[O], REMEMBERED, remembered(wk));
				if :: !ok -> goto passed :: else fi
			:: else
			fi
		:: act == UNDO ->
			if
			:: !has(x[O], UNDOING) && !PLANT(NO_MARK) ->
				write(sweeper, O, x[O], 0, UNDOING);
				if :: !ok -> goto passed :: else fi
			:: else
			fi
		fi
	};
	if
	:: act == DROP ->
		if
		:: !has(x[R], DEL) -> atomic { write(sweeper, R, x[R], 0, DEL); if :: !ok -> goto passed :: else fi }
		:: has(x[R], DEL)
		fi
	:: act == UNDO -> /* replacementOf: live */
		atomic {
			if
			:: !has(pod[R], EXISTS) -> goto lift
			:: neverCommitted(pod[R]) -> ok = 0; goto passed
			:: else ->
				if
				:: reattached(x[O]) ->
					write(sweeper, O, x[O], WORKER|REMEMBERED, DONE|DETACHED|remembered(wk));
					if :: !ok -> goto passed :: else fi
				:: else
				fi
			fi
		}
	fi;
strip:
	atomic { write(sweeper, i, x[i], TRACKED, 0); goto passed };
lift:
	if
	:: !has(x[i], FAILED|SUCCEEDED) && (ended(x[i]) || has(x[i], GATED)) ->
		atomic { write(sweeper, i, x[i], 0, FAILED); if :: !ok -> goto passed :: else fi }
	:: else
	fi;
	atomic {
		assert(old(sweeper, i) || !has(pod[i], REVOKED));
		write(sweeper, i, x[i], LIFTED(x[i])|WORKER, worker(wk));
		missed = missed || ok && i == R && wk != scheduler /* it reads no row */
	};
passed:
	atomic {
		left = left || has(x[i], TRACKED); n++; x[i] = x[i] & TRACKED; stale[i] = stale[i] | (1 << sweeper);
		i = 1 - i; ok = 0; wk = 0; act = UNDECIDED;
		if
		:: n < 2 -> goto release
		:: else -> d_step { x[O] = 0; x[R] = 0; n = 0; i = 0; stale[O] = stale[O] | (1 << sweeper); stale[R] = stale[R] | (1 << sweeper) }
		fi
	};
end:
	/* the next pass comes when there is something to do, or somebody calls again because nobody leads */
	(left && due[sweeper] || !left && leaders == 0 && has(pod[O] | pod[R], TRACKED));
	goto pass
}
