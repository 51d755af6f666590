// Command kubectl is the release's own kubectl command and nothing else: what people have, and what
// benchmarks measure against, without the weight of the multi-call program.
package main

import (
	"os"

	_ "k8s.io/client-go/plugin/pkg/client/auth" // as in the release
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	// Building the command already logs, so verbosity is read before flags are parsed.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
