// Package etcd runs one etcd member from a configuration file.
package etcd

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

// Run serves until a signal or a fatal error; its one argument is the configuration file.
func Run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: etcd CONFIG-FILE")
	}
	config, err := embed.ConfigFromFile(args[0])
	if err != nil {
		return err
	}
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}
