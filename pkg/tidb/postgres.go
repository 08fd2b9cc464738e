package tidb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
)

// postgresServer is PostgreSQL, or PgBouncer before it in any of its modes: there are no prepared statements, no
// transactions and no session state.
type postgresServer struct {
	target
	schema string // where Airflow's tables are; empty: where the user's search_path says
}

// passedOn are the options that mean the same to pgx as to libpq. Nothing else goes to the server: PgBouncer refuses
// start-up parameters that it does not know, such as options or statement_timeout.
func (postgresServer) passedOn() []string {
	return []string{
		"sslrootcert", "sslcert", "sslkey", "sslpassword", "sslnegotiation", "channel_binding", "require_auth",
		"connect_timeout",
	}
}

// used are further options that are seen to, or that mean nothing to a reader like this one.
func (postgresServer) used() []string {
	return []string{
		"sslmode", "ssl", "host", "port", "user", "password", "dbname",
		"application_name", "client_encoding", "target_session_attrs", "keepalives", "keepalives_idle",
		"keepalives_interval", "keepalives_count", "tcp_user_timeout", "gssencmode",
		"prepared_statement_cache_size", "statement_cache_size", "prepare_threshold", "async_fallback",
	}
}

func (s *postgresServer) connect() (*sql.DB, []string, error) {
	for _, name := range []string{"sslcrl", "sslcrldir"} {
		if s.options.get(name) != "" {
			return nil, nil, fmt.Errorf("reading the connection URL: %s is not supported, and leaving it out would trust "+
				"certificates that are revoked", name)
		}
	}
	settings, err := s.settings()
	if err != nil {
		return nil, nil, err
	}
	config, err := pgx.ParseConfig(settings)
	if err != nil {
		// The error shows what it could not parse; only its cause may be shown.
		if cause := errors.Unwrap(err); cause != nil {
			return nil, nil, fmt.Errorf("reading the connection URL's options: %w", s.safe(cause))
		}
		return nil, nil, errors.New("reading the connection URL's options: " +
			"one of sslmode, " + strings.Join(s.passedOn(), ", ") + ", host and port has a value that is not valid")
	}
	// The password is not among the settings, so that no parser can quote it.
	if s.password != "" {
		config.Password = s.password
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	config.RuntimeParams = map[string]string{"application_name": applicationName, "client_encoding": "UTF8"}
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsPrimary
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}

	known := append(s.passedOn(), s.used()...)
	if s.schema != "" {
		known = append(known, "options")
	}
	return bound(stdlib.OpenDB(*config)), s.options.unused(known), nil
}

// settings are the target as libpq's keywords and values, without the password.
func (s *postgresServer) settings() (string, error) {
	hosts, ports := s.addresses()
	sslmode := s.options.get("sslmode")
	if ssl := s.options.get("ssl"); sslmode == "" && ssl == "true" {
		sslmode = "require"
	} else if sslmode == "" {
		sslmode = ssl // asyncpg's name for it
	}
	modes := []string{"", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	if !slices.Contains(modes, sslmode) {
		return "", errors.New("reading the connection URL's options: sslmode is none of" + strings.Join(modes, " "))
	}
	settings := [][2]string{
		{"host", hosts}, {"port", ports}, {"user", s.user}, {"dbname", s.database}, {"sslmode", sslmode},
	}
	for _, name := range s.passedOn() {
		settings = append(settings, [2]string{name, s.options.get(name)})
	}
	var words []string
	for _, setting := range settings {
		if value := setting[1]; value != "" {
			words = append(words, setting[0]+"='"+strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)+"'")
		}
	}
	return strings.Join(words, " "), nil
}

// addresses are hosts and ports as lists. SQLAlchemy's psycopg2 takes several hosts as options: host=a:1&host=b:2 or
// host=a,b&port=1,2. A host that is a directory is that of a Unix socket.
func (s *postgresServer) addresses() (hosts, ports string) {
	given := s.options.values("host")
	if len(given) == 0 {
		return s.host, s.port
	}
	var hostList, portList []string
	for _, host := range given {
		name, port, _ := strings.Cut(host, ":")
		hostList, portList = append(hostList, name), append(portList, port)
	}
	hosts, ports = strings.Join(hostList, ","), strings.Join(portList, ",")
	if strings.Trim(ports, ",") == "" {
		if ports = s.options.get("port"); ports == "" {
			ports = s.port
		}
	}
	return hosts, ports
}

// searchPath is the first schema that the option options (-c search_path=airflow,public) names. The option itself cannot
// be sent: PgBouncer refuses it.
func searchPath(options string) string {
	found := regexp.MustCompile(`search_path=\s*"?(\w+)`).FindStringSubmatch(options)
	if found == nil {
		return ""
	}
	return strings.ToLower(found[1])
}

func (s *postgresServer) table(name string) string {
	if s.schema == "" {
		return name
	}
	return pgx.Identifier{s.schema, name}.Sanitize()
}

// checkFresh asks again what was asked of each new connection: a PgBouncer can change what is behind it.
func (s *postgresServer) checkFresh(ctx context.Context, db *sql.DB) error {
	var standby bool
	if err := db.QueryRowContext(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return err
	}
	if standby {
		return errReplica
	}
	return nil
}

func (s *postgresServer) columns(ctx context.Context, db *sql.DB) ([]string, error) {
	return queryStrings(ctx, db, "SELECT attname::text FROM pg_catalog.pg_attribute "+
		"WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped", s.table("task_instance"))
}

func (s *postgresServer) text(column string) string { return column + "::text" }

// byKey asks for all of a mapped task's instances at once: where the statistics mislead the planner into an index that
// leaves out the last column (there are three), it reads a run with thousands of them once and not 500 times. OFFSET 0
// keeps the arrays from being parsed for every row.
func (s *postgresServer) byKey(columns [4]string, keys []requeue.Key) (string, []any) {
	mapped := map[requeue.Key][]string{}
	for _, key := range keys {
		task := requeue.Key{DagID: key.DagID, TaskID: key.TaskID, RunID: key.RunID}
		mapped[task] = append(mapped[task], strconv.Itoa(key.MapIndex))
	}
	var dags, tasks, runs, indexes []string
	for task, ofTask := range mapped {
		dags, tasks, runs = append(dags, task.DagID), append(tasks, task.TaskID), append(runs, task.RunID)
		indexes = append(indexes, "{"+strings.Join(ofTask, ",")+"}")
	}
	return fmt.Sprintf("JOIN (SELECT d, t, r, i::int4[] AS i "+
		"FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u (d, t, r, i) OFFSET 0) AS wanted "+
		"ON %s = d AND %s = t AND %s = r AND %s = ANY (i)", columns[0], columns[1], columns[2], columns[3],
	), []any{dags, tasks, runs, indexes}
}

func (s *postgresServer) byID(ids []string) (string, []any) {
	return "WHERE id = ANY ($1::text[]::uuid[])", []any{ids}
}

func advisePostgres(err error, sslmode string) string {
	// With sslmode=prefer there are two attempts, and the refused TLS of the first is the first line of the error, before
	// what was answered to the second.
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return advisePostgresCode(said)
	}
	switch {
	case strings.Contains(err.Error(), "server refused TLS connection") && sslmode != "" && sslmode != "prefer":
		return "the server, or a PgBouncer before it, does not offer TLS, and sslmode in the connection URL asks for it: " +
			"switch TLS on there, or say sslmode=prefer or disable"
	case strings.Contains(err.Error(), "server is in standby mode"):
		return errReplica.Error()
	}
	return ""
}

func advisePostgresCode(said *pgconn.PgError) string {
	switch {
	case strings.Contains(said.Message, "startup parameter"):
		return "PgBouncer refused a start-up parameter: let it ignore application_name and client_encoding " +
			"(ignore_startup_parameters), or connect to PostgreSQL itself"
	case said.Code == "28P01" || said.Code == "28000" || strings.Contains(said.Message, "authentication failed"):
		return "the server refused the user or the password of the connection URL, or this host or its use of TLS " +
			"(pg_hba.conf)"
	case said.Code == "3D000" || strings.Contains(said.Message, "no such database"),
		strings.HasPrefix(said.Message, "database ") && strings.HasSuffix(said.Message, "does not exist"): // PgBouncer's
		return "the server has no database of the name that is in the connection URL"
	case said.Code == "42501":
		return "the user of the connection URL may not read: it needs SELECT on task_instance and alembic_version, " +
			"USAGE on their schema and CONNECT on the database"
	case said.Code == "42P01" || said.Code == "42703":
		return "the tables are no longer those that were there at the start; has Airflow been upgraded?"
	case said.Code == "53300" || strings.Contains(said.Message, "no more connections allowed"):
		return "the server has no connection left"
	case said.Code == "57P03":
		return "the server is starting up, shutting down or recovering"
	}
	return ""
}
