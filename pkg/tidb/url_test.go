package tidb

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseURL(t *testing.T) {
	for url, want := range map[string]target{
		"postgresql://airflow:secret@db.example:5433/airflow?sslmode=require": {
			dialect: PostgreSQL, user: "airflow", password: "secret", host: "db.example", port: "5433", database: "airflow",
			options: options{{"sslmode", "require"}},
		},
		// The chart's own default.
		"postgresql://postgres:postgres@airflow-postgresql.default:5432/postgres?sslmode=disable": {
			dialect: PostgreSQL, user: "postgres", password: "postgres", host: "airflow-postgresql.default", port: "5432",
			database: "postgres", options: options{{"sslmode", "disable"}},
		},
		"postgresql+psycopg2://airflow:p%40ss%2Fw%3Ard%25+%C3%BC@db/airflow": {
			dialect: PostgreSQL, driver: "psycopg2", user: "airflow", password: "p@ss/w:rd%+ü", host: "db", database: "airflow",
		},
		// Python leaves alone what is no escape, and SQLAlchemy takes all but an @ in a password.
		"postgresql+asyncpg://air%2Bflow:100%/of?it#zz%zz:[]@db": {
			dialect: PostgreSQL, driver: "asyncpg", user: "air+flow", password: "100%/of?it#zz%zz:[]", host: "db",
		},
		"postgres://db/airflow": {dialect: PostgreSQL, host: "db", database: "airflow"},
		"postgresql+psycopg://airflow:secret@[2001:db8::1]:5432/airflow": {
			dialect: PostgreSQL, driver: "psycopg", user: "airflow", password: "secret", host: "2001:db8::1", port: "5432",
			database: "airflow",
		},
		"postgresql://airflow:secret@/airflow?host=/var/run/postgresql&connect_timeout=3&empty=&a+b=c+d": {
			dialect: PostgreSQL, user: "airflow", password: "secret", database: "airflow",
			options: options{{"host", "/var/run/postgresql"}, {"connect_timeout", "3"}, {"a b", "c d"}},
		},
		"postgresql:///?host=db&user=airflow&password=p%40ss&dbname=airflow": {
			dialect: PostgreSQL, user: "airflow", password: "p@ss", database: "airflow",
			options: options{{"host", "db"}, {"user", "airflow"}, {"password", "p@ss"}, {"dbname", "airflow"}},
		},
		"mysql+mysqldb://airflow:secret@db:3306/airflow?charset=utf8mb4": {
			dialect: MySQL, driver: "mysqldb", user: "airflow", password: "secret", host: "db", port: "3306", database: "airflow",
			options: options{{"charset", "utf8mb4"}},
		},
		"mysql+pymysql://airflow@db/airflow": {
			dialect: MySQL, driver: "pymysql", user: "airflow", host: "db", database: "airflow",
		},
		"mysql+mysqlconnector://airflow:secret@db/airflow": {
			dialect: MySQL, driver: "mysqlconnector", user: "airflow", password: "secret", host: "db", database: "airflow",
		},
		"mysql://airflow:secret@db/airflow": {
			dialect: MySQL, user: "airflow", password: "secret", host: "db", database: "airflow",
		},
		"sqlite:////opt/airflow/airflow.db": {dialect: SQLite, database: "/opt/airflow/airflow.db"},
		"sqlite:///airflow@home.db":         {dialect: SQLite, database: "airflow@home.db"},
		"sqlite+aiosqlite:///air%20flow.db": {dialect: SQLite, driver: "aiosqlite", database: "air flow.db"},
	} {
		got, err := parseURL(url)
		require.NoError(t, err, url)
		want.url = url
		assert.Equal(t, want, got, url)
	}
}

func TestParseURLSaysWhatIsWrong(t *testing.T) {
	const notOne = "parsing the connection URL: it is not an SQLAlchemy URL, such as " +
		"postgresql://user:password@host:5432/database (special characters in the password are to be URL-quoted)"
	const scheme = "parsing the connection URL: it does not begin with postgresql://, mysql:// or sqlite:// " +
		"(a driver may follow the name, as in postgresql+psycopg2://)"
	const at = "parsing the connection URL: it has an @ too many: " +
		"in a user name or a password it is to be quoted as %40, and a slash as %2F"
	const port = "parsing the connection URL: its port is not a number up to 65535 " +
		"(special characters in a password are to be URL-quoted)"
	for url, want := range map[string]string{
		"":                              notOne,
		"airflow:secret@db/airflow":     notOne,
		"postgresql//airflow:secret@db": notOne,
		"postgresql://a:secret@db\n/airflow?x=\n": notOne,
		"secret://airflow@db/airflow":             scheme,
		"db+postgresql://airflow:secret@db":       scheme,
		"mssql+pyodbc://sa:secret@db/a":           "parsing the connection URL: mssql is not supported; PostgreSQL, MySQL and SQLite are",
		"oracle://sa:secret@db/a":                 "parsing the connection URL: oracle is not supported; PostgreSQL, MySQL and SQLite are",
		"postgresql://airflow:sec@ret@db/a":       at,
		"postgresql://air/flow:secret@db/a":       at,
		"mysql://air/flow?secret@db/a":            at,
		"postgresql://airflow:secret/a":           port,
		"postgresql://airflow:secret@db:x/a":      port,
		"postgresql://airflow:secret@db:65536/a":  port,
	} {
		_, err := parseURL(url)
		assert.EqualError(t, err, want, url)
	}
}

func TestPostgreSQLSettings(t *testing.T) {
	for url, want := range map[string]string{
		"postgresql://airflow:secret@db:5433/airflow?sslmode=verify-full&sslrootcert=/ca.crt": "host='db' port='5433' " +
			"user='airflow' dbname='airflow' sslmode='verify-full' sslrootcert='/ca.crt'",
		"postgresql+asyncpg://air%27flow@db/air%5Cflow?ssl=require":           `host='db' user='air\'flow' dbname='air\\flow' sslmode='require'`,
		"postgresql://db/airflow?ssl=true":                                    "host='db' dbname='airflow' sslmode='require'",
		"postgresql://airflow@/a?host=/run/pg":                                "host='/run/pg' user='airflow' dbname='a'",
		"postgresql://airflow@/a?host=one:5432&host=two:5433":                 "host='one,two' port='5432,5433' user='airflow' dbname='a'",
		"postgresql://airflow@/a?host=one,two&port=1,2&options=-csearch_path": "host='one,two' port='1,2' user='airflow' dbname='a'",
		"postgresql://airflow@db:6432/a?host=one&host=two":                    "host='one,two' port='6432' user='airflow' dbname='a'",
	} {
		target, err := parseURL(url)
		require.NoError(t, err)
		got, err := newServer(target).(*postgresServer).settings()
		require.NoError(t, err)
		assert.Equal(t, want, got, url)
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("postgresql+psycopg2://airflow:secret@db:5432/airflow?sslmode=require")
	f.Add("mysql://a:%zz@[::1]:1/x%?a=%&b")
	f.Add("sqlite:///x?y#z")
	f.Add("mysql://airflow:a-very-long-secret-password@db/airflow?ssl_mode=a-very-long-secret-password")
	f.Fuzz(func(t *testing.T, url string) {
		target, err := parseURL(url)
		if err != nil {
			return
		}
		db, warnings, err := newServer(target).connect()
		if db != nil {
			_ = db.Close()
		}
		const long = 20 // a shorter one may be in a text by chance
		if len(target.password) < long {
			return
		}
		assert.NotContains(t, strings.Join(warnings, " "), target.password)
		if err != nil {
			assert.NotContains(t, err.Error(), target.password)
		}
	})
}
