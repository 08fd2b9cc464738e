#!/usr/bin/env bash
# Remakes pkg/tidb/testdata/<version>-<dialect>.sql: the tables that pkg/tidb reads, exactly as `airflow db migrate` of a
# released Airflow makes them, without the foreign keys to tables that the tests do not have. In a new database Airflow makes
# the tables as they are last; <version>-upgraded-<dialect>.sql is what its migrations, one by one from Airflow 2.6 on, make.
#
#   hack/airflow-ddl.sh                      all of them
#   hack/airflow-ddl.sh 3.3.2-sqlite ...     these
#
# Wants Go, what hack/python.sh installs and, but for SQLite, what hack/databases.sh installs; Airflow 3 on MariaDB also
# libmariadb-dev, pkg-config and a C compiler, since it wants mysqlclient. Servers run in a temporary directory and are gone
# afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."

all=(
	2.10.5-sqlite 2.10.5-postgresql 2.10.5-mysql
	2.11.2-sqlite 2.11.2-postgresql 2.11.2-mysql
	3.0.6-sqlite 3.0.6-postgresql 3.0.6-mysql
	3.1.8-sqlite 3.1.8-postgresql 3.1.8-mysql
	3.2.2-sqlite 3.2.2-postgresql 3.2.2-mysql
	3.3.2-sqlite 3.3.2-postgresql 3.3.2-mysql
	3.3.2-upgraded-sqlite 3.3.2-upgraded-postgresql # one of the migrations is SQL that MySQL knows and MariaDB does not
	3.4.0b2-sqlite 3.4.0b2-postgresql 3.4.0b2-mysql
)

work=$(mktemp -d)
chmod 755 "$work"
servers=()
cleanup() {
	[ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
	wait || true
	rm -rf "$work"
}
trap cleanup EXIT

# PostgreSQL and MariaDB refuse to run as root.
unprivileged=(env)
[ "$(id -u)" -ne 0 ] || unprivileged=(setpriv --reuid=65534 --regid=65534 --clear-groups)
own_dir() {
	mkdir "$work/$1"
	[ "$(id -u)" -ne 0 ] || chown 65534:65534 "$work/$1"
}
wait_for() {
	for _ in $(seq 100); do
		[ ! -S "$1" ] || return 0
		sleep 0.2
	done
	echo "airflow-ddl: the server did not come up:" >&2
	cat "$2" >&2
	return 1
}

start_postgresql() {
	[ ! -d "$work/pg" ] || return 0
	local bin
	bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
	PATH="$PATH:$bin"
	own_dir pg
	(
		cd "$work/pg"
		"${unprivileged[@]}" initdb -D data -U airflow --auth=trust -E UTF8 --no-sync >initdb.log
		exec "${unprivileged[@]}" postgres -D data -k "$work/pg" -h '' -c fsync=off >server.log 2>&1
	) &
	servers+=($!)
	wait_for "$work/pg/.s.PGSQL.5432" "$work/pg/server.log"
}

start_mysql() {
	[ ! -d "$work/my" ] || return 0
	PATH="$PATH:/usr/sbin"
	own_dir my
	(
		cd "$work/my"
		"${unprivileged[@]}" mariadb-install-db --no-defaults --datadir="$work/my/data" --auth-root-authentication-method=normal \
			--skip-test-db >install.log
		exec "${unprivileged[@]}" mariadbd --no-defaults --datadir="$work/my/data" --socket="$work/my/s" --skip-networking \
			--pid-file="$work/my/pid" --character-set-server=utf8mb4 >server.log 2>&1
	) &
	servers+=($!)
	wait_for "$work/my/s" "$work/my/server.log"
}

# Prints the DDL as the database shows it; the header and the removal of foreign keys are the same for all.
cat >"$work/dump.py" <<'PYTHON'
import re, subprocess, sys

dialect, version, where = sys.argv[1:]
tables = ["task_instance", "alembic_version"]


def without_foreign_keys(ddl):
    lines = [line.rstrip() for line in ddl.strip().splitlines() if "FOREIGN KEY" not in line]
    # MariaDB shows indexes in the order that they were made in, which is another one every time.
    keys = sorted(line.rstrip(",") + "," for line in lines if line.startswith("  KEY "))
    first = next((i for i, line in enumerate(lines) if line.startswith("  KEY ")), 0)
    lines = lines[:first] + keys + [line for line in lines[first:] if not line.startswith("  KEY ")]
    return re.sub(r",\n\)", "\n)", "\n".join(lines))


if dialect == "sqlite":
    import sqlite3

    db = sqlite3.connect(where)
    marks = ", ".join("?" * len(tables))
    rows = db.execute(
        f"SELECT sql FROM sqlite_master WHERE tbl_name IN ({marks}) AND sql IS NOT NULL "
        "ORDER BY tbl_name DESC, type DESC, name", tables)
    statements = [without_foreign_keys(row[0]) for row in rows]
    revision = db.execute("SELECT version_num FROM alembic_version").fetchone()[0]
elif dialect == "mysql":
    import pymysql

    db = pymysql.connect(unix_socket=where, user="root", database="airflow")
    cursor = db.cursor()
    statements = []
    for table in tables:
        cursor.execute(f"SHOW CREATE TABLE {table}")
        statements.append(without_foreign_keys(cursor.fetchone()[1]))
    cursor.execute("SELECT version_num FROM alembic_version")
    revision = cursor.fetchone()[0]
else:
    command = ["pg_dump", "-h", where, "-U", "airflow", "--schema-only", "--no-owner", "--no-privileges"]
    dump = subprocess.run(
        [*command, *(f"--table={table}" for table in tables), "airflow"], check=True, capture_output=True, text=True)
    text = "\n".join(line for line in dump.stdout.splitlines() if not re.match(r"--|\\|SET |SELECT ", line))
    statements = [s.strip() for s in re.split(r";\n", text) if s.strip() and "FOREIGN KEY" not in s]
    statements = [s.replace("public.", "") for s in statements]
    query = ["psql", "-h", where, "-U", "airflow", "-Atc", "SELECT version_num FROM alembic_version", "airflow"]
    revision = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()

server = {"mysql": "MariaDB", "postgresql": "PostgreSQL", "sqlite": "SQLite"}[dialect]
release, _, upgraded = version.partition("-")
made = "upgrades an older Airflow's tables to" if upgraded else "makes"
print(f"-- What `airflow db migrate` of Airflow {release} {made} on {server}, without foreign keys.")
print("-- Made by hack/airflow-ddl.sh; not edited by hand.\n")
for statement in statements:
    print(f"{statement};\n")
print(f"INSERT INTO alembic_version (version_num) VALUES ('{revision}');")
PYTHON

make_one() {
	local version=${1%%-*} dialect=${1##*-} to=() python url where
	[[ $1 != *-upgraded-* ]] || to=(--to-version "$version")
	python=$(go run ./internal/airflow/cmd/airflow "$version" "$dialect")
	case $dialect in
	sqlite)
		where="$work/$1.db"
		url="sqlite:///$where"
		;;
	postgresql)
		start_postgresql
		where="$work/pg"
		psql -q -h "$where" -U airflow -c 'DROP DATABASE IF EXISTS airflow' -c 'CREATE DATABASE airflow' postgres 2>/dev/null
		url="postgresql+psycopg2://airflow@/airflow?host=$where"
		;;
	mysql)
		start_mysql
		where="$work/my/s"
		"$python" -c "
import pymysql
cursor = pymysql.connect(unix_socket='$where', user='root').cursor()
cursor.execute('DROP DATABASE IF EXISTS airflow')
cursor.execute('CREATE DATABASE airflow CHARACTER SET utf8mb4')"
		url="mysql+pymysql://root@localhost/airflow?unix_socket=$where"
		;;
	*) echo "airflow-ddl: no dialect $dialect" >&2 && return 1 ;;
	esac
	echo "airflow-ddl: migrating $1"
	if ! AIRFLOW_HOME="$work/home-$1" AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=$url \
		"$python" -m airflow db migrate "${to[@]}" >"$work/migrate.log" 2>&1; then
		tail -n 30 "$work/migrate.log" >&2
		return 1
	fi
	"$python" "$work/dump.py" "$dialect" "${1%-*}" "$where" >"$work/dump.sql"
	cp "$work/dump.sql" "pkg/tidb/testdata/$1.sql"
	echo "airflow-ddl: pkg/tidb/testdata/$1.sql"
}

mkdir -p pkg/tidb/testdata
[ $# -gt 0 ] || set -- "${all[@]}"
for one in "$@"; do
	make_one "$one"
done
