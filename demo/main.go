// Command demo shows the main job on a real kube-apiserver, live: worker pods that die before their tasks start, what
// airflow-requeue makes of them, and what Airflow's own executor sees of it. It ends with a table, and with an error if
// anything in that came out otherwise than it must.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for the cleaning up
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run is the whole program; only main knows of the process.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	o, help, err := parse(args)
	if err != nil {
		return err
	}
	if help != "" {
		_, err := io.WriteString(stdout, help)
		return err
	}
	show := newTimeline(newScreen(stdout, o.plain), time.Now())
	stage, err := newStage(show)
	if err != nil {
		return err
	}
	printing := show.start()
	err = perform(ctx, stage, o)
	printing()
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	failed := err != nil && ctx.Err() == nil && len(stage.processes) > 0
	if failed {
		show.page(func(s screen) { s.printf("\nThe logs of all processes are in %s\n", stage.dir) })
	}
	return errors.Join(err, stage.tearDown(failed))
}

// perform sets the stage, plays every scenario on it and judges what came of it.
func perform(ctx context.Context, stage *stage, o options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stage.show.page(heading)
	if err := stage.setUp(ctx, cancel, o); err != nil {
		return err
	}
	play := newPlay(stage, o.patience)
	stop, err := play.begin(ctx, cancel)
	if err != nil {
		return err
	}
	defer stop()
	for i := range play.scenarios {
		if err := play.act(ctx, i); err != nil {
			return err
		}
	}
	numbers, err := play.end(ctx)
	if err != nil {
		return err
	}
	stage.show.page(func(s screen) {
		table(s, play.scenarios)
		sum(s, play.scenarios, numbers, time.Since(stage.show.began))
	})
	if err := play.judge(numbers); err != nil {
		return err
	}
	if !o.keep {
		return nil
	}
	stage.show.page(func(s screen) {
		s.printf("\nStill running, until Ctrl-C. Look around:\n  kubectl --kubeconfig %s -n %s get pods,events\n  logs: %s\n",
			stage.kubeconfig("admin"), namespace, stage.dir)
	})
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause // a process has ended
	}
	return nil
}
