// Dex for the tests: in memory, with the cluster as its one connector and one public client, whose foreign tokens it
// exchanges (RFC 8693). A program of our own around its module, as the command it ships needs a module that is not
// published.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/server/signer"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
)

const exchange = "urn:ietf:params:oauth:grant-type:token-exchange"

type settings struct {
	issuer, cert, key, upstream, upstreamCA, connector, client string
	life                                                       time.Duration
}

func main() {
	var s settings
	flag.StringVar(&s.issuer, "issuer", "", "its own address, https://HOST:PORT/PATH")
	flag.StringVar(&s.cert, "cert", "", "its certificate")
	flag.StringVar(&s.key, "key", "", "the certificate's key")
	flag.StringVar(&s.upstream, "upstream", "https://kubernetes.default.svc", "whose tokens it exchanges")
	flag.StringVar(&s.upstreamCA, "upstream-ca", "", "who vouches for that")
	flag.StringVar(&s.connector, "connector", "kubernetes", "the connector's id")
	flag.StringVar(&s.client, "client", "e2e", "the client's id")
	flag.DurationVar(&s.life, "life", time.Minute, "how long its tokens live")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := s.serve(log); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Error("dex", "err", err)
		os.Exit(1)
	}
}

func (s settings) serve(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	own, err := url.Parse(s.issuer)
	if err != nil {
		return err
	}
	connector, err := json.Marshal(map[string]any{
		"issuer": s.upstream, "clientID": s.client, "redirectURI": s.issuer + "/callback",
		"scopes": []string{"openid"}, "userNameKey": "sub", "rootCAs": []string{s.upstreamCA},
	})
	if err != nil {
		return err
	}
	store := storage.WithStaticClients(memory.New(log), []storage.Client{{ID: s.client, Name: s.client, Public: true}})
	store = storage.WithStaticConnectors(store, []storage.Connector{{
		ID: s.connector, Type: "oidc", Name: s.connector, Config: connector, GrantTypes: []string{exchange},
	}})
	keys, err := (&signer.LocalConfig{KeysRotationPeriod: "6h"}).Open(ctx, store, s.life, time.Now, log)
	if err != nil {
		return err
	}
	handler, err := server.NewServer(ctx, server.Config{
		Issuer: s.issuer, Storage: store, Signer: keys, IDTokensValidFor: s.life, Logger: log,
	})
	if err != nil {
		return err
	}
	web := &http.Server{Addr: own.Host, Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = web.Close()
	}()
	return web.ListenAndServeTLS(s.cert, s.key)
}
