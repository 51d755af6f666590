// Package probe asks several health addresses at once.
package probe

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// answer is what one address said; a body is kept for those who look closer.
type answer struct {
	Name   string `json:"name"`
	Status int    `json:"status"`
	Body   string `json:"body"`
	Error  string `json:"error"`
}

const maxBody = 16 << 20

// Run prints a JSON array with one answer per NAME=URL, in the order given. Server certificates are
// not checked: these are local processes of our own, asked whether they live.
func Run(args []string) error {
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	certificate := flags.String("cert", "", "client certificate")
	key := flags.String("key", "", "its key")
	timeout := flags.Duration("timeout", 3*time.Second, "for each answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("usage: probe [--cert FILE --key FILE] NAME=URL...")
	}
	config := &tls.Config{InsecureSkipVerify: true}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	client := &http.Client{Timeout: *timeout, Transport: &http.Transport{TLSClientConfig: config}}
	answers := make([]answer, flags.NArg())
	var group sync.WaitGroup
	for i, pair := range flags.Args() {
		name, url, found := strings.Cut(pair, "=")
		if !found {
			return fmt.Errorf("%q is not NAME=URL", pair)
		}
		group.Go(func() { answers[i] = ask(client, name, url) })
	}
	group.Wait()
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func ask(client *http.Client, name, url string) answer {
	response, err := client.Get(url)
	if err != nil {
		return answer{Name: name, Error: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return answer{Name: name, Error: err.Error()}
	}
	return answer{Name: name, Status: response.StatusCode, Body: string(body)}
}
