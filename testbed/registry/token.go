package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/crypto/bcrypt"
)

const (
	tokenPath = "/auth/token"
	issuer    = "registry.test"
	service   = "registry.test"
)

// tokens is the authorization server of the registry's token authentication:
// https://distribution.github.io/distribution/spec/auth/token/
//
// Whoever has a password may pull; "push" may push too. A repository whose name begins with "of-" belongs to the user
// that follows, and nobody else may pull it.
type tokens struct {
	passwords map[string]string
	signer    jose.Signer
}

// serveWithTokens serves a registry that asks for a token, and the tokens at the same address.
func serveWithTokens(address, htpasswd string) error {
	passwords, err := readPasswords(htpasswd)
	if err != nil {
		return err
	}
	signer, bundle, err := newSigner()
	if err != nil {
		return err
	}
	app := handlers.NewApp(context.Background(), &configuration.Configuration{
		Storage: configuration.Storage{"inmemory": configuration.Parameters{}},
		Auth: configuration.Auth{"token": configuration.Parameters{
			"realm": "", "service": service, "issuer": issuer, "rootcertbundle": bundle,
			"autoredirect": true, "autoredirectpath": tokenPath,
		}},
	})
	mux := http.NewServeMux()
	mux.Handle(tokenPath, &tokens{passwords, signer})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		// The challenge names the address that the client asked, by https unless this header says otherwise.
		r.Header.Set("X-Forwarded-Proto", "http")
		app.ServeHTTP(w, r)
	})
	return http.ListenAndServe(address, mux)
}

func readPasswords(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	passwords := map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if user, hash, ok := strings.Cut(strings.TrimSpace(lines.Text()), ":"); ok {
			passwords[user] = hash
		}
	}
	return passwords, nil
}

// newSigner makes a key; the registry reads its certificate from the file that is returned.
func newSigner() (jose.Signer, string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: issuer}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, "", err
	}
	bundle := filepath.Join(os.TempDir(), "token.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	if err := os.WriteFile(bundle, text, 0o644); err != nil {
		return nil, "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	options = options.WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(certificate)})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, options)
	return signer, bundle, err
}

func (t *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	scopes := r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		// The OAuth 2.0 form of it, which containerd tries first.
		user, password, ok = r.PostFormValue("username"), r.PostFormValue("password"), true
		scopes = r.PostForm["scope"]
	}
	if !ok || bcrypt.CompareHashAndPassword([]byte(t.passwords[user]), []byte(password)) != nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry.test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	now := time.Now()
	claims := token.ClaimSet{
		Issuer: issuer, Subject: user, Audience: []string{service}, Expiration: now.Add(5 * time.Minute).Unix(),
		NotBefore: now.Add(-time.Minute).Unix(), IssuedAt: now.Unix(), JWTID: now.String(), Access: access(user, scopes),
	}
	raw, err := jwt.Signed(t.signer).Claims(claims).Serialize()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": raw, "access_token": raw, "expires_in": 300})
}

// access is what a user gets of what it asks for: TYPE:NAME:ACTION,… in each scope.
func access(user string, scopes []string) []*token.ResourceActions {
	granted := []*token.ResourceActions{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		kind, rest, _ := strings.Cut(scope, ":")
		last := strings.LastIndex(rest, ":")
		if kind != "repository" || last < 0 {
			continue
		}
		name, actions := rest[:last], []string{}
		owner, _, isOwned := strings.Cut(strings.TrimPrefix(name, "of-"), "/")
		isOwned = isOwned && strings.HasPrefix(name, "of-")
		for _, action := range strings.Split(rest[last+1:], ",") {
			if user == "push" || action == "pull" && (!isOwned || owner == user) {
				actions = append(actions, action)
			}
		}
		granted = append(granted, &token.ResourceActions{Type: kind, Name: name, Actions: actions})
	}
	return granted
}
