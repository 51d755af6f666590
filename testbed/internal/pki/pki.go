// Package pki makes a cluster's keys, certificates and kubeconfigs.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	years = 10
	skew  = time.Hour // certificates begin in the past: clocks of test machines jump
)

// authority signs certificates into one directory.
type authority struct {
	directory   string
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// Run writes everything into DIRECTORY: `pki --server URL --inside URL --address IP... --node NAME=IP... DIRECTORY`.
// The admin's kubeconfig names --server (as seen from the machine), the components' name --inside.
func Run(args []string) error {
	flags := flag.NewFlagSet("pki", flag.ContinueOnError)
	server := flags.String("server", "", "the API's address on this machine")
	inside := flags.String("inside", "", "the API's address in the cluster's network namespace")
	addresses := flags.String("addresses", "", "the API's other IP addresses, comma-separated")
	nodes := flags.String("nodes", "", "NAME=IP of every node, comma-separated")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || *server == "" || *inside == "" {
		return errors.New("--server, --inside and a directory are needed")
	}
	directory := flags.Arg(0)
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(directory, "ca")
	if err != nil {
		return err
	}
	if err := serverSide(ca, directory, strings.Split(*addresses, ",")); err != nil {
		return err
	}
	clients := map[string]pkix.Name{
		"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
		"kube-scheduler":          {CommonName: "system:kube-scheduler"},
		"kube-proxy":              {CommonName: "system:kube-proxy"},
		"coredns":                 {CommonName: "system:coredns"},
		"local-path":              {CommonName: "system:local-path"},
	}
	for _, pair := range strings.Split(*nodes, ",") {
		name, ip, found := strings.Cut(pair, "=")
		if !found {
			return fmt.Errorf("%q is not NAME=IP", pair)
		}
		identity := pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
		clients["kubelet-"+name] = identity
		if _, err := ca.issue("kubelet-server-"+name, identity, x509.ExtKeyUsageServerAuth, []string{name, ip, "127.0.0.1"}); err != nil {
			return err
		}
	}
	for name, identity := range clients {
		if err := ca.client(name, identity, *inside); err != nil {
			return err
		}
	}
	return ca.client("admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}, *server)
}

// serverSide makes what the API server holds: its own certificates, and the service accounts' key.
func serverSide(ca *authority, directory string, addresses []string) error {
	names := append([]string{
		"localhost", "127.0.0.1",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}, addresses...)
	if _, err := ca.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, x509.ExtKeyUsageServerAuth, names); err != nil {
		return err
	}
	toKubelet := pkix.Name{CommonName: "apiserver-kubelet", Organization: []string{"system:masters"}}
	if _, err := ca.issue("apiserver-kubelet", toKubelet, x509.ExtKeyUsageClientAuth, nil); err != nil {
		return err
	}
	front, err := newAuthority(directory, "front-proxy-ca")
	if err != nil {
		return err
	}
	if _, err := front.issue("front-proxy", pkix.Name{CommonName: "front-proxy"}, x509.ExtKeyUsageClientAuth, nil); err != nil {
		return err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048) // OIDC readers expect RS256
	if err != nil {
		return err
	}
	if err := writeKey(filepath.Join(directory, "sa.key"), key); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	_, err = writePEM(filepath.Join(directory, "sa.pub"), "PUBLIC KEY", public, 0o644)
	return err
}

func newAuthority(directory, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := template(pkix.Name{CommonName: "postern-testbed-" + name})
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := writeKey(filepath.Join(directory, name+".key"), key); err != nil {
		return nil, err
	}
	encoded, err := writePEM(filepath.Join(directory, name+".crt"), "CERTIFICATE", der, 0o644)
	return &authority{directory, certificate, key, encoded}, err
}

func template(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject, BasicConstraintsValid: true,
		NotBefore: now.Add(-skew), NotAfter: now.AddDate(years, 0, 0),
	}, nil
}

// issued is a certificate and its key, both as PEM.
type issued struct{ certificate, key []byte }

func (a *authority) issue(name string, subject pkix.Name, usage x509.ExtKeyUsage, hosts []string) (*issued, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate, err := template(subject)
	if err != nil {
		return nil, err
	}
	certificate.KeyUsage = x509.KeyUsageDigitalSignature
	certificate.ExtKeyUsage = []x509.ExtKeyUsage{usage}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			certificate.IPAddresses = append(certificate.IPAddresses, ip)
		} else if host != "" {
			certificate.DNSNames = append(certificate.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, certificate, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(a.directory, name)
	if err := writeKey(path+".key", key); err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(path + ".key")
	if err != nil {
		return nil, err
	}
	certificatePEM, err := writePEM(path+".crt", "CERTIFICATE", der, 0o644)
	return &issued{certificatePEM, keyPEM}, err
}

// client issues a client certificate and a kubeconfig that carries it.
func (a *authority) client(name string, subject pkix.Name, server string) error {
	pair, err := a.issue(name, subject, x509.ExtKeyUsageClientAuth, nil)
	if err != nil {
		return err
	}
	const cluster = "postern-testbed"
	encode := base64.StdEncoding.EncodeToString
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": cluster,
		"clusters": []any{map[string]any{"name": cluster, "cluster": map[string]any{
			"server": server, "certificate-authority-data": encode(a.pem),
		}}},
		"users": []any{map[string]any{"name": name, "user": map[string]any{
			"client-certificate-data": encode(pair.certificate), "client-key-data": encode(pair.key),
		}}},
		"contexts": []any{map[string]any{"name": cluster, "context": map[string]any{"cluster": cluster, "user": name}}},
	}
	encoded, err := json.MarshalIndent(config, "", "  ") // JSON is YAML
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.directory, name+".kubeconfig"), append(encoded, '\n'), 0o600)
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	_, err = writePEM(path, "PRIVATE KEY", der, 0o600)
	return err
}

func writePEM(path, kind string, der []byte, mode os.FileMode) ([]byte, error) {
	encoded := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return encoded, os.WriteFile(path, encoded, mode)
}
