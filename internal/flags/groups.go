// Package flags holds the command line flags that webhook and watcher have in common, so that both mean the same.
package flags

import (
	"fmt"
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

// All is one set of all flags, to parse arguments with. --help makes Parse return pflag.ErrHelp and prints nothing.
func (g *Groups) All(program string) *pflag.FlagSet {
	all := pflag.NewFlagSet(program, pflag.ContinueOnError)
	all.Usage = func() {}
	for _, set := range g.sets {
		all.AddFlagSet(set)
	}
	return all
}

// Help explains every flag, group by group.
func (g *Groups) Help(intro string) string {
	var b strings.Builder
	b.WriteString(intro)
	for i, set := range g.sets {
		fmt.Fprintf(&b, "\n%s:\n%s", g.titles[i], set.FlagUsagesWrapped(110))
	}
	return b.String()
}
