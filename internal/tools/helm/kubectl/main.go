// Command kubectl is Kubernetes' own: k8s.io/kubernetes/cmd/kubectl has these lines, in a module that can't be required
// without three dozen replacements.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
