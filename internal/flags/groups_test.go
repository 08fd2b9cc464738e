package flags

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAFlagThatIsNotGivenIsWhatItsVariableHolds(t *testing.T) {
	type values struct {
		name string
		many []string
		n    int
	}
	parse := func(args ...string) (v values, help string, err error) {
		g := &Groups{}
		set := g.Add("Whose")
		set.StringVar(&v.name, "name", "plain", "`name` of it")
		set.StringSliceVar(&v.many, "many", []string{"one"}, "all of them")
		set.IntVar(&v.n, "n", 1, "how many")
		FromVariable(set, "name", "NAME")
		FromVariable(set, "many", "MANY")
		FromVariable(set, "n", "N")
		help, err = g.Parse("program", "intro\n", args)
		return v, help, err
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		want values
	}{
		{"without any, its default", nil, nil, values{"plain", []string{"one"}, 1}},
		{"the variable", map[string]string{"NAME": "blue", "MANY": "a,b", "N": "2"}, nil, values{"blue", []string{"a", "b"}, 2}},
		{"an empty variable is none", map[string]string{"NAME": "", "MANY": "", "N": ""}, nil, values{"plain", []string{"one"}, 1}},
		{"the argument, whatever the variable", map[string]string{"NAME": "blue", "MANY": "a,b", "N": "2"}, []string{"--name=", "--many=c", "--many=d", "--n=1"},
			values{"", []string{"c", "d"}, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			got, help, err := parse(c.args...)
			require.NoError(t, err)
			assert.Empty(t, help)
			assert.Equal(t, c.want, got)
		})
	}
	_, help, err := parse("--help")
	require.NoError(t, err)
	assert.Contains(t, help, "name of it; else what variable NAME holds (default \"plain\")\n")
	t.Setenv("N", "many")
	_, _, err = parse()
	assert.ErrorContains(t, err, "variable N: invalid argument \"many\" for \"--n\" flag")
}
