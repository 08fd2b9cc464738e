package tidb

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// release is a release of Airflow whose tables are in testdata, in one dialect.
type release struct {
	version string // such as 3.3.2, or 3.3.2-upgraded; the file's name up to the dialect
	tables  string
	idType  string // of task_instance's id, as the tables have it; empty before Airflow 3
}

// releases are all that testdata has of a dialect: each dialect's test reads every one of them.
func releases(t *testing.T, dialect Dialect) []release {
	t.Helper()
	suffix := "-" + strings.ToLower(string(dialect)) + ".sql"
	files, err := filepath.Glob(filepath.Join("testdata", "*"+suffix))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all []release
	for _, file := range files {
		version := strings.TrimSuffix(filepath.Base(file), suffix)
		r := release{version: version, tables: ddl(t, version, strings.ToLower(string(dialect)))}
		if id := regexp.MustCompile("(?m)^\\s+`?id`? (\\w+(\\(\\d+\\))?) NOT NULL").FindStringSubmatch(r.tables); id != nil {
			r.idType = strings.ToLower(id[1])
		}
		all = append(all, r)
	}
	return all
}

// minor is the minor release, such as 3.3.
func (r release) minor() string { return regexp.MustCompile(`^\d+\.\d+`).FindString(r.version) }

// database is a name for a database with these tables.
func (r release) database(suffix string) string {
	return strings.ToLower(strings.NewReplacer(".", "", "-", "_", " ", "_").Replace("airflow " + r.version + suffix))
}

// storedID is an ID as the tables hold it.
func (r release) storedID(id string) string {
	if r.idType == "char(32)" {
		return strings.ReplaceAll(id, "-", "")
	}
	return id
}

// assertIsNamed compares what people are told of a schema with what is true of the release.
func (r release) assertIsNamed(t *testing.T, got Schema) {
	t.Helper()
	want := map[string]string{
		"2.10": "2.10 (revision 5f2621c13b39, of Airflow 2.10.3 to 2.11)",
		"2.11": "2.10 (revision 5f2621c13b39, of Airflow 2.10.3 to 2.11)",
		"3.0":  "3.0 (revision fe199e1abd77, of Airflow 3.0.3 to 3.0.6)",
		"3.1":  "3.0 (revision 509b94a1042d, of Airflow 3.1.8)",
		"3.2":  "3.0 (revision 1d6611b6ab7c, of Airflow 3.2)",
		"3.3":  "3.0 (revision d2f4e1b3c5a7, of Airflow 3.3)",
		"3.4":  "3.4, known from its beta only: unverified (revision 9cffe90fa0c0, of Airflow 3.4.0b2)",
	}
	assert.Equal(t, string(got.Dialect)+", task_instance as since Airflow "+want[r.minor()], got.String())
	assert.Empty(t, got.Warnings)
}

// Every minor release has its tables here in every dialect, and IDs in every form that there is. An upgraded database is not
// like a new one in the order of its columns; MySQL's is missing, since MariaDB can't run the migrations.
func TestTheTablesOfEveryMinorReleaseAreHere(t *testing.T) {
	got := map[Dialect]map[string]string{}
	files := 0
	for _, dialect := range []Dialect{PostgreSQL, MySQL, SQLite} {
		got[dialect] = map[string]string{}
		for _, r := range releases(t, dialect) {
			got[dialect][r.version] = r.idType
			files++
		}
	}
	assert.Equal(t, map[Dialect]map[string]string{
		PostgreSQL: {
			"2.10.5": "", "2.11.2": "", "3.0.6": "uuid", "3.1.8": "uuid", "3.2.2": "uuid", "3.3.2": "uuid",
			"3.3.2-upgraded": "uuid", "3.4.0b2": "uuid",
		},
		MySQL: {
			"2.10.5": "", "2.11.2": "", "3.0.6": "varchar(36)", "3.1.8": "varchar(36)", "3.2.2": "char(32)", "3.3.2": "uuid",
			"3.4.0b2": "uuid",
		},
		SQLite: {
			"2.10.5": "", "2.11.2": "", "3.0.6": "varchar(36)", "3.1.8": "varchar(36)", "3.2.2": "char(32)", "3.3.2": "char(32)",
			"3.3.2-upgraded": "char(32)", "3.4.0b2": "char(32)",
		},
	}, got)
	all, err := filepath.Glob("testdata/*.*")
	require.NoError(t, err)
	assert.Len(t, all, files, "testdata has files that no test reads")
}
