package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

const intro = `demo shows on a real kube-apiserver, live, what airflow-requeue makes of worker pods that die before their tasks
start. It ends with a table, and with exit code 1 if anything in it came out otherwise than it must.

`

type options struct {
	keep  bool
	plain bool

	// For the demo's own test: a demo that cannot fail shows nothing.
	patience    time.Duration
	webhookArgs []string
}

// parse reads arguments; help is not empty where it was asked for.
func parse(args []string) (o options, help string, err error) {
	flags := pflag.NewFlagSet("demo", pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.BoolVar(&o.keep, "keep", false, "keep all of it running afterwards, to look around with kubectl, until Ctrl-C")
	flags.BoolVar(&o.plain, "plain", false, "no colours, on a terminal either (as does NO_COLOR)")
	flags.DurationVar(&o.patience, "patience", time.Minute, "how long a scenario may take")
	flags.StringArrayVar(&o.webhookArgs, "webhook-arg", nil, "another argument for the webhook; repeatable")
	for _, hidden := range []string{"patience", "webhook-arg"} {
		if err := flags.MarkHidden(hidden); err != nil {
			return o, "", fmt.Errorf("hiding --%s: %w", hidden, err)
		}
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return o, intro + flags.FlagUsagesWrapped(110), nil
	case err != nil:
		return o, "", fmt.Errorf("%w; see --help", err)
	case flags.NArg() > 0:
		return o, "", fmt.Errorf("unexpected argument %s; see --help", strings.Join(flags.Args(), " "))
	}
	return o, "", nil
}
