// Command registry is the registry of the distribution project, with the storage and the kinds of authentication that
// tests use.
package main

import (
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

func main() {
	// Not one of the registry's own commands: it serves tokens too.
	if len(os.Args) == 3 && os.Args[1] == "serve-with-tokens" {
		if err := serveWithTokens(":5000", os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := registry.RootCmd.Execute(); err != nil {
		os.Exit(1)
	}
}
