// Command testctl holds the testbed's small tools, which must start in milliseconds: the
// forwarder into the cluster's network namespace, the certificates, and health probes.
package main

import (
	"fmt"
	"os"

	"postern.dev/testbed/internal/forward"
	"postern.dev/testbed/internal/pki"
	"postern.dev/testbed/internal/probe"
)

func main() {
	programs := map[string]func([]string) error{"forward": forward.Run, "pki": pki.Run, "probe": probe.Run}
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: testctl forward|pki|probe [ARGUMENTS]")
		os.Exit(2)
	}
	if err := programs[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
