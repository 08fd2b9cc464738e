package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/airflow-requeue/airflow-requeue/internal/bench"
)

const intro = `bench measures airflow-requeue on a real API server and PostgreSQL, with webhook and watcher as they ship: what
admission costs, how fast a pod and a storm of pods are replaced, and what the watcher takes. It prints a table, and
writes all samples to bench.json.

`

type options struct {
	measure bench.Options
	out     string
}

// parse reads arguments; help is not empty where it was asked for.
func parse(args []string) (o options, help string, err error) {
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	flags.Usage = func() {}
	names := strings.Join(bench.Names(), ",")
	flags.StringSliceVar(&o.measure.Only, "only", nil, "measure only these: "+names)
	flags.BoolVar(&o.measure.Quick, "quick", false, "take few samples: shows whether all comes out right, and no times")
	flags.BoolVar(&o.measure.Airflow, "airflow", true, "measure Airflow's own executor as well, which is installed from PyPI")
	flags.IntVar(&o.measure.Storm, "storm", 10000, "`pods` of the largest storm")
	flags.StringVar(&o.measure.Profiles, "profiles", "", "`folder` for CPU profiles of watcher, webhook and API server, which cost some time")
	flags.StringVar(&o.out, "out", "docs/bench", "`folder` for bench.json, or unfinished.json of a run that fails")
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return o, intro + flags.FlagUsagesWrapped(110), nil
	case err != nil:
		return o, "", fmt.Errorf("%w; see --help", err)
	case flags.NArg() > 0:
		return o, "", fmt.Errorf("unexpected argument %s; see --help", strings.Join(flags.Args(), " "))
	}
	for _, name := range o.measure.Only {
		if !slices.Contains(bench.Names(), name) {
			return o, "", fmt.Errorf("--only=%s: use some of %s", name, names)
		}
	}
	return o, "", nil
}
