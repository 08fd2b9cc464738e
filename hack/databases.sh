#!/usr/bin/env bash
# Installs the database servers that the tests of pkg/tidb start for themselves: PostgreSQL, PgBouncer and MariaDB
# (it stands in for MySQL). Nothing is started here, and what is there already is left as it is.
set -euo pipefail

missing=()
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
PATH="$PATH:/usr/sbin:/usr/local/sbin"
command -v pgbouncer >/dev/null || missing+=(pgbouncer)
# The core packages have the server without its service.
command -v mariadbd >/dev/null && command -v my_print_defaults >/dev/null || missing+=(mariadb-server-core mariadb-client-core)

if [ ${#missing[@]} -eq 0 ]; then
	echo "databases: PostgreSQL, PgBouncer and MariaDB are here"
	exit 0
fi
if ! command -v apt-get >/dev/null; then
	echo "databases: no apt-get here; install PostgreSQL (12 or newer), PgBouncer and MariaDB by other means" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "databases: run as root, or: apt-get install --no-install-recommends ${missing[*]}" >&2
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
echo "databases: updating the package lists"
quietly apt-get update
echo "databases: installing ${missing[*]}"
quietly apt-get install -y --no-install-recommends "${missing[@]}"
rm -f "$log"
echo "databases: installed"
