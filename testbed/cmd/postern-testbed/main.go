// Command postern-testbed is every program of the test cluster in one: it becomes the one whose name
// it is called by, or the one named by its first argument.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	_ "time/tzdata" // CronJobs name time zones

	"github.com/spf13/cobra"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // as in the release
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"postern.dev/testbed/internal/dns"
	"postern.dev/testbed/internal/etcd"
	"postern.dev/testbed/internal/localpath"
)

// programs maps a name to what runs under it. Each is given the arguments after its name.
var programs = map[string]func(args []string) error{
	"kube-apiserver":          upstream(func() *cobra.Command { return apiserver.NewAPIServerCommand() }),
	"kube-controller-manager": upstream(func() *cobra.Command { return controllermanager.NewControllerManagerCommand() }),
	"kube-scheduler":          upstream(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kube-proxy":              upstream(func() *cobra.Command { return proxy.NewProxyCommand() }),
	// The kubelet installs its own signal context and panics when it is given a second one.
	"kubelet":    upstream(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl":    kubectl,
	"etcd":       etcd.Run,
	"coredns":    dns.Run,
	"local-path": localpath.Run,
}

// upstream wraps one of Kubernetes' own commands, which read os.Args and end the process themselves.
func upstream(build func() *cobra.Command) func([]string) error {
	return func(args []string) error {
		os.Args = append([]string{os.Args[0]}, args...)
		os.Exit(cli.Run(build()))
		return nil
	}
}

// kubectl of the same release. Alone, without the servers' weight, it is cmd/kubectl.
func kubectl(args []string) error {
	os.Args = append([]string{"kubectl"}, args...)
	// Building the command already logs, so verbosity is read before flags are parsed.
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args))
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
	return nil
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	run, found := programs[name]
	if !found && len(args) > 0 {
		name, args = args[0], args[1:]
		run, found = programs[name]
	}
	if !found {
		fmt.Fprintf(os.Stderr, "usage: postern-testbed %s [ARGUMENTS]\n", strings.Join(names(), "|"))
		os.Exit(2)
	}
	if err := run(args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func names() []string {
	all := make([]string, 0, len(programs))
	for name := range programs {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
