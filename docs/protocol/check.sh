#!/usr/bin/env bash
# Checks the model of the protocol exhaustively in every configuration below, and that each planted fault is found.
# One line for each: name, states, seconds of processor time, memory, verdict. Two run at a time (JOBS).
set -euo pipefail
cd "$(dirname "$0")"

# name | the model's macros | what must come out: clean, or the planted fault found
configurations() {
	cat <<-'END'
		sweep, two watchers | -DSWEEP -DWATCHERS=2 -DSTART=FAILED | clean
		revocation, two watchers | -DREVOCATION -DWATCHERS=2 -DSTART=FAILED | clean
		sweep and revocation | -DSWEEP -DREVOCATION -DSTART=FAILED | clean
		adoption, two watchers | -DADOPTION -DWATCHERS=2 -DSTART=FAILED -DLATE | clean
		sweep and adoption | -DSWEEP -DADOPTION -DSTART=FAILED | clean
		sweep | -DSWEEP -DEVICT -DLATE | clean
		sweep and deferral | -DSWEEP -DDEFERRAL -DLIFE | clean
		two watchers | -DWATCHERS=2 -DLIFE -DEVICT -DLATE -DREFUSALS=1 | clean
		deferral, two watchers | -DDEFERRAL -DWATCHERS=2 -DLIFE -DN_RUNS=1 | clean
		crashes | -DCRASHES=2 -DLIFE -DEVICT -DLATE -DREFUSALS=1 | clean
		adoption and crash | -DADOPTION -DCRASHES=1 -DLIFE -DLATE -DREFUSALS=1 | clean
		revocation and crash | -DREVOCATION -DCRASHES=1 -DLIFE -DLATE -DREFUSALS=1 -DN_RUNS=1 | clean
		deferral and crash | -DDEFERRAL -DCRASHES=1 -DLIFE -DEVICT -DLATE -DREFUSALS=1 -DN_RUNS=1 | clean
		no mark, two watchers | -DFAULT=NO_MARK -DWATCHERS=2 -DSTART=FAILED -DLATE | found
		no mark, sweep | -DFAULT=NO_MARK -DSWEEP -DSTART=FAILED | found
		no live list, two watchers | -DFAULT=NO_LIVE_LIST -DWATCHERS=2 -DSTART=FAILED -DLATE | found
		no live read, two watchers | -DFAULT=NO_LIVE_READ -DWATCHERS=2 -DSTART=FAILED -DLATE | found
		no gate, two watchers | -DFAULT=NO_GATE -DWATCHERS=2 -DSTART=FAILED -DLATE | found
		no second row read, revocation | -DFAULT=NO_SECOND_ROW_READ -DREVOCATION -DSTART=FAILED | found
		no lift guard, revocation | -DFAULT=NO_LIFT_GUARD -DREVOCATION -DLIFE | found
		no row 24, adoption | -DFAULT=NO_ROW_24 -DADOPTION -DLATE | found
		no linger, crashes | -DFAULT=NO_LINGER -DEVICT -DLATE | found
		no row 2 in the sweep, sweep | -DFAULT=NO_ROW_2_IN_SWEEP -DSWEEP -DSTART=FAILED -DLATE | found
	END
}

trim() { sed 's/^ *//; s/ *$//' <<<"$1"; }

# check runs one configuration. It fails on whatever is not the expected verdict: an assertion, a fault that is not
# found, and a search that was cut short by depth, memory or time.
check() {
	local name macros want dir verdict states seconds memory optimise
	IFS='|' read -r name macros want <<<"$1"
	name=$(trim "$name") macros=$(trim "$macros") want=$(trim "$want")
	[ "$want" = clean ] && optimise=-O2 || optimise=-O0 # a fault is found sooner than gcc has optimised
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' RETURN
	(
		cd "$dir"
		# shellcheck disable=SC2086 # macros are words
		timeout 300 spin -a $macros "$MODEL" >spin.log 2>&1 && gcc "$optimise" -w -DSAFETY -DCOLLAPSE -DMEMLIM=2000 -o pan pan.c 2>>spin.log
		# -E: the processes stop where they please; what must be true then is asserted on timeout.
		timeout 1800 ./pan -E -m1000000 -w23 >pan.log 2>&1 || echo "pan ended with $?" >>pan.log
	) || true
	touch "$dir/pan.log"
	states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$dir/pan.log")
	memory=$(sed -n 's/^ *\([0-9]*\)\..*total actual memory usage.*/\1/p' "$dir/pan.log")
	if grep -qE 'max search depth too small|out of memory|reached -DMEMLIM|pan ended with' "$dir/pan.log"; then
		verdict="cut short"
	elif grep -q 'assertion violated' "$dir/pan.log"; then
		verdict=found
	elif grep -q 'errors: 0' "$dir/pan.log" && ! grep -q 'Search not completed' "$dir/pan.log" && [ "${states:-0}" -gt 0 ]; then
		verdict=clean
	else
		verdict="not run"
	fi
	times >"$dir/times" # not in a pipe: that is another process
	seconds=$(awk 'END { split($1, user, /[ms]/); print int(user[1] * 60 + user[2] + 0.5) }' "$dir/times") # of the children
	if [ "$verdict" = "$want" ]; then
		printf '%-34s %10s states %4d s %5s MB  %s\n' "$name" "$states" "$seconds" "$memory" "$verdict"
		return 0
	fi
	printf '%-34s %10s states %4d s %5s MB  %s, but it should be %s\n' "$name" "${states:-0}" "$seconds" "${memory:-0}" "$verdict" "$want"
	{ cat "$dir/spin.log"; grep -E '^pan' "$dir/pan.log"; } 2>/dev/null | head -5 || true
	return 1
}

if [ "${1:-}" = --one ]; then
	MODEL=$PWD/protocol.pml
	check "$2"
	exit
fi
command -v spin >/dev/null && command -v gcc >/dev/null || { echo "model: spin and gcc are needed: hack/spin.sh" >&2; exit 1; }
begin=$SECONDS
if ! configurations | tr '\n' '\0' | xargs -0 -n 1 -P "${JOBS:-2}" "$PWD/check.sh" --one; then
	echo "model: something is not as it should be" >&2
	exit 1
fi
echo "model: all is as it should be, in $((SECONDS - begin)) s"
