package flags

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheVersionIsToldWhereItIsAskedFor(t *testing.T) {
	unstamped := version
	defer func() { version = unstamped }()
	assert.NotEmpty(t, Version(), "of a program that was not stamped")
	version = "v0.1.0-3-g7bb79ed"
	g := &Groups{}

	told, err := g.Parse("airflow-requeue-webhook", "intro", []string{"--version"})

	require.NoError(t, err)
	assert.Equal(t, "airflow-requeue-webhook v0.1.0-3-g7bb79ed "+runtime.Version()+"\n", told)
}

func TestHelpNamesTheVersionsFlag(t *testing.T) {
	g := &Groups{}
	g.Add("Process").Bool("busy", false, "never rest")

	help, err := g.Parse("airflow-requeue-webhook", "intro\n", []string{"--help"})

	require.NoError(t, err)
	assert.Equal(t, "intro\n\nProcess:\n      --busy[=true|false]   never rest\n\nAbout:\n      --version[=true|false]   print the version, and that of Go, and exit\n", help)
}
