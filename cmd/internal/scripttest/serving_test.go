package scripttest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// serving runs a program beside a server that it can reach.
func serving() {
	flags, program := os.Args[1:], []string(nil)
	if at := slices.Index(flags, "--"); at >= 0 {
		flags, program = flags[:at], flags[at+1:]
	}
	if flags[0] == "-tls" {
		makeCertificate("cert.pem", "key.pem")
		os.Setenv("SSL_CERT_FILE", "cert.pem")
		flags = append([]string{"--tls-cert", "cert.pem", "--tls-key", "key.pem"}, flags[1:]...)
	}
	server := exec.Command("bk-serve", append([]string{"--listen", "localhost:0"}, flags...)...)
	messages, err := server.StderrPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		fatal("start bk-serve: %v", err)
	}
	lines := bufio.NewScanner(messages)
	address := ""
	for lines.Scan() {
		if where, ok := strings.CutPrefix(lines.Text(), "serving at "); ok {
			if u, err := url.Parse(where); err == nil {
				address = u.Host
			}
			break
		}
		os.Stderr.WriteString(lines.Text() + "\n")
	}
	if address == "" {
		os.Exit(exitCode(server.Wait()))
	}
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		for lines.Scan() {
			os.Stderr.WriteString(lines.Text() + "\n")
		}
	}()
	for i, arg := range program {
		program[i] = strings.ReplaceAll(arg, "SERVER", address)
	}
	cmd := exec.Command(program[0], program[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	code := exitCode(cmd.Run())
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		fatal("stop bk-serve: %v", err)
	}
	<-rest
	if ended := exitCode(server.Wait()); ended != 0 {
		fatal("bk-serve exits with %d when it is stopped", ended)
	}
	os.Exit(code)
}

// makeCertificate writes a certificate for this machine that is its own root.
func makeCertificate(certFile, keyFile string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		fatal("%v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		fatal("%v", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		fatal("%v", err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			fatal("%v", err)
		}
	}
}
