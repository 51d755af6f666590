// Package dns runs CoreDNS with the few plugins a cluster without an outside needs.
package dns

import (
	"errors"
	"os"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// Run serves until a signal; its one argument is the Corefile.
func Run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: coredns COREFILE")
	}
	contents, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	caddy.AppName = "CoreDNS"
	caddy.Quiet = true
	dnsserver.Quiet = true
	caddy.TrapSignals()
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: args[0], Contents: contents, ServerTypeName: "dns"})
	if err != nil {
		return err
	}
	instance.Wait()
	return nil
}
