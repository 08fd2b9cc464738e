#!/usr/bin/env bash
# Installs spin, the model checker, and gcc, which compiles what spin makes of a model. What is there already is left as it is.
set -euo pipefail

missing=()
command -v spin >/dev/null || missing+=(spin)
command -v gcc >/dev/null && echo 'int main(void){return 0;}' | gcc -x c -o /dev/null - 2>/dev/null || missing+=(gcc libc6-dev)

if [ ${#missing[@]} -eq 0 ]; then
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "model: no apt-get here; install spin (6.5 or newer) and gcc by other means" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "model: run as root, or: apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 1
fi

log=$(mktemp)
quietly() {
	if ! "$@" >"$log" 2>&1; then
		cat "$log" >&2
		exit 1
	fi
}
export DEBIAN_FRONTEND=noninteractive
echo "model: updating the package lists"
quietly apt-get update
echo "model: installing ${missing[*]}"
quietly apt-get install -y --no-install-recommends "${missing[@]}"
rm -f "$log"
