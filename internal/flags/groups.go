// Package flags holds the command line flags that webhook and watcher have in common, so that both mean the same.
package flags

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/pflag"
)

// Groups are a program's flags under headings, in the order in which help shows them.
type Groups struct {
	titles []string
	sets   []*pflag.FlagSet
}

// Add starts a group.
func (g *Groups) Add(title string) *pflag.FlagSet {
	set := pflag.NewFlagSet(title, pflag.ContinueOnError)
	set.SortFlags = false
	g.titles, g.sets = append(g.titles, title), append(g.sets, set)
	return set
}

// annotationVariable has the name of the environment variable that a flag's default is from.
const annotationVariable = "variable"

// FromVariable has a flag's default be what an environment variable holds, where that is not empty: a program that is started inside
// of a running container, as by kubectl exec, has its variables, but not its arguments.
func FromVariable(set *pflag.FlagSet, name, variable string) {
	flag := set.Lookup(name)
	flag.Usage += "; else what variable " + variable + " holds"
	flag.Annotations = map[string][]string{annotationVariable: {variable}}
}

// setFromVariables sets the flags that were not given.
func setFromVariables(all *pflag.FlagSet) error {
	var errs []error
	all.VisitAll(func(flag *pflag.Flag) {
		for _, variable := range flag.Annotations[annotationVariable] {
			if value := os.Getenv(variable); value != "" && !flag.Changed {
				if err := all.Set(flag.Name, value); err != nil {
					errs = append(errs, fmt.Errorf("variable %s: %w", variable, err))
				}
			}
		}
	})
	return errors.Join(errs...)
}

// Parse reads arguments, which are flags only, and for those that are not given their variables; help is not empty where it, or the version, was asked for.
func (g *Groups) Parse(program, intro string, args []string) (help string, err error) {
	version := g.Add("About").Bool("version", false, "print the version, and that of Go, and exit")
	all := g.all(program)
	switch err := all.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return g.help(intro), nil
	case err != nil:
		return "", fmt.Errorf("%w; see --help", err)
	case all.NArg() > 0:
		return "", fmt.Errorf("unexpected argument %s; see --help", strings.Join(all.Args(), " "))
	case *version:
		return fmt.Sprintf("%s %s %s\n", program, Version(), runtime.Version()), nil
	}
	return "", setFromVariables(all)
}

// all is one set of all flags, which prints nothing by itself.
func (g *Groups) all(program string) *pflag.FlagSet {
	all := pflag.NewFlagSet(program, pflag.ContinueOnError)
	all.Usage = func() {}
	for _, set := range g.sets {
		all.AddFlagSet(set)
	}
	return all
}

// help explains every flag, group by group.
func (g *Groups) help(intro string) string {
	var b strings.Builder
	b.WriteString(intro)
	for i, set := range g.sets {
		fmt.Fprintf(&b, "\n%s:\n%s", g.titles[i], set.FlagUsagesWrapped(110))
	}
	return b.String()
}
