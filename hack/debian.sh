#!/usr/bin/env bash
# Installs Debian packages: debian.sh TARGET WHAT PACKAGE... says, where it can't, what to install by other means.
set -euo pipefail
target=$1 what=$2
shift 2

if ! command -v apt-get >/dev/null; then
	echo "$target: no apt-get here; install $what by other means" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "$target: run as root, or: apt-get install --no-install-recommends $*" >&2
	exit 1
fi

# Debian's packages start what they install unless this policy says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi

log=$(mktemp)
quietly() {
	if ! "$@" >"$log" 2>&1; then
		cat "$log" >&2
		exit 1
	fi
}
export DEBIAN_FRONTEND=noninteractive
echo "$target: updating the package lists"
quietly apt-get update
echo "$target: installing $*"
quietly apt-get install -y --no-install-recommends "$@"
rm -f "$log"
echo "$target: installed"
