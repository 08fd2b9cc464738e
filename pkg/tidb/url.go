package tidb

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Dialect is the kind of a database.
type Dialect string

// The dialects that Airflow supports.
const (
	PostgreSQL Dialect = "PostgreSQL"
	MySQL      Dialect = "MySQL"
	SQLite     Dialect = "SQLite"
)

// target is a connection URL in parts, unquoted.
type target struct {
	dialect  Dialect
	driver   string // "psycopg2" of postgresql+psycopg2; empty where the URL has none
	user     string
	password string
	host     string
	port     string
	database string
	options  options

	url string // as it was given, so that no error can show it
}

// options are the options after the question mark, in their order. A name may come twice.
type options []option

type option struct{ name, value string }

// values are all values of a name.
func (o options) values(name string) []string {
	var values []string
	for _, option := range o {
		if option.name == name {
			values = append(values, option.value)
		}
	}
	return values
}

// get is the last value of a name, as for the drivers of Python; empty where there is none.
func (o options) get(name string) string {
	values := o.values(name)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// unused are warnings for the options whose names are not in known. They have no values in them: an option's value may
// be a secret.
func (o options) unused(known []string) []string {
	var warnings []string
	for _, option := range o {
		if !slices.Contains(known, option.name) {
			warnings = append(warnings, fmt.Sprintf("the option %s of the connection URL is not used", option.name))
		}
	}
	return slices.Compact(warnings)
}

// parseURL takes a URL apart as SQLAlchemy does (engine/url.py, the same expression). net/url does not: it refuses
// passwords that SQLAlchemy takes, and shows the URL in its errors. No error here shows any part of the URL.
func parseURL(url string) (target, error) {
	form := regexp.MustCompile(`^([\w+]+)://(?:([^:/]*)(?::([^@]*))?@)?` +
		`(?:(?:\[([^/?]+)\]|([^/:?]+))?(?::([^/?]*))?)?(?:/([^?]*))?(?:\?(.*))?$`)
	parts := form.FindStringSubmatch(url)
	if parts == nil {
		return target{}, errors.New("parsing the connection URL: it is not an SQLAlchemy URL, " +
			"such as postgresql://user:password@host:5432/database (special characters in the password are to be URL-quoted)")
	}
	t := target{
		user:     unquote(parts[2]),
		password: unquote(parts[3]),
		host:     parts[4] + parts[5], // at most one of them, in brackets or not
		port:     parts[6],
		database: unquote(parts[7]),
		options:  parseOptions(parts[8]),
		url:      url,
	}
	var err error
	if t.dialect, t.driver, err = parseScheme(parts[1]); err != nil {
		return target{}, err
	}
	if t.dialect == PostgreSQL { // as for psycopg2, what is said in an option wins
		t.user = cmp.Or(t.options.get("user"), t.user)
		t.password = cmp.Or(t.options.get("password"), t.password)
		t.database = cmp.Or(t.options.get("dbname"), t.database)
	}
	// What a password that is not quoted does to a URL. It must be seen here: a host or a database goes into errors of
	// resolvers and servers.
	stray := strings.Contains(t.host, "@") || strings.Contains(t.database, "@") ||
		parts[2] == "" && strings.Contains(parts[8], "@")
	if stray && t.dialect != SQLite {
		return target{}, errors.New("parsing the connection URL: it has an @ too many: " +
			"in a user name or a password it is to be quoted as %40, and a slash as %2F")
	}
	if _, err := strconv.ParseUint(t.port, 10, 16); t.port != "" && err != nil {
		return target{}, errors.New("parsing the connection URL: its port is not a number up to 65535 " +
			"(special characters in a password are to be URL-quoted)")
	}
	return t, nil
}

func parseScheme(scheme string) (Dialect, string, error) {
	name, driver, _ := strings.Cut(scheme, "+")
	switch name {
	case "postgresql", "postgres":
		return PostgreSQL, driver, nil
	case "mysql", "mariadb":
		return MySQL, driver, nil
	case "sqlite":
		return SQLite, driver, nil
	case "mssql", "oracle":
		return "", "", fmt.Errorf("parsing the connection URL: %s is not supported; PostgreSQL, MySQL and SQLite are", name)
	default:
		return "", "", errors.New("parsing the connection URL: it does not begin with postgresql://, mysql:// or sqlite:// " +
			"(a driver may follow the name, as in postgresql+psycopg2://)")
	}
}

// parseOptions is Python's parse_qsl: an option without a value is none.
func parseOptions(query string) options {
	var options options
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(strings.ReplaceAll(pair, "+", " "), "=")
		if value != "" {
			options = append(options, option{name: unquote(name), value: unquote(value)})
		}
	}
	return options
}

// unquote is Python's unquote: a percent sign that begins no escape stands for itself.
func unquote(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out.WriteByte(byte(b))
				i += 2
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}
