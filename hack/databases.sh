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
exec "$(dirname "$0")/debian.sh" databases "PostgreSQL (12 or newer), PgBouncer and MariaDB" "${missing[@]}"
