// Package serve is what bk-serve does: repositories of this machine for clients
// elsewhere, and the file of users. Start at Serve. Only that program imports it.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bk-backup/bk/cmd/internal/cli"
	"github.com/bk-backup/bk/repo/server"
	"github.com/bk-backup/bk/repo/store"
	"github.com/bk-backup/bk/repo/store/dir"
	"github.com/bk-backup/bk/repo/store/httpstore"
)

// Serve is the program bk-serve.
type Serve struct {
	Repos []string `arg:"" optional:"" name:"repository" placeholder:"[NAME=]DIR" help:"What is served: one directory, or several, each under a name."`

	Listen    string `default:"localhost:8430" placeholder:"ADDRESS" help:"HOST:PORT, :PORT for all addresses, or unix:PATH. Default: ${default}."`
	Users     string `placeholder:"FILE" help:"Who may what. Without it everybody who reaches the address may all, so it must be one of this machine."`
	TLSCert   string `name:"tls-cert" placeholder:"FILE" help:"Certificate, in PEM."`
	TLSKey    string `name:"tls-key" placeholder:"FILE" help:"Its key."`
	PlainHTTP bool   `name:"plain-http" help:"Take requests of other machines without TLS: a proxy in front of this or a private network keeps the tokens secret."`

	AddUser string   `group:"Users" placeholder:"NAME" help:"Draw a token for somebody, add a line to --users, print the token, and stop."`
	Access  string   `group:"Users" default:"append" enum:"read,append,full" help:"What the new user may do: read; append, which is what backups need and deletes nothing; or full. Default: ${default}."`
	Only    []string `group:"Users" placeholder:"NAME" help:"Of several repositories, those that the new user may use. Repeatable. Default: all."`
}

// Help is the longer text.
func (*Serve) Help() string {
	return `Repositories are directories of this machine; an empty one becomes a repository when somebody with full access runs bk-init. Clients name them by URL, and have the token of their user in BK_SERVER_TOKEN, BK_SERVER_TOKEN_FILE or BK_SERVER_TOKEN_COMMAND:

  mkdir /srv/bk
  bk-serve --users /etc/bk-users --add-user admin --access full
  bk-serve --users /etc/bk-users --add-user laptop > laptop.token
  bk-serve --users /etc/bk-users --listen :8430 --tls-cert cert.pem --tls-key key.pem /srv/bk

  bk-backup -r https://laptop@backup.example.org:8430/ ~

With append a machine makes backups and restores them, and cannot delete, forget or replace one, whoever has taken it over: retention and bk-gc run on the server, or with a token for full access. The passphrase and all keys stay with the clients; the server sees what storage sees (spec/security.md), and refuses objects that were damaged on the way.

To take a token back, remove the user's line; the file is read again when it changes. A certificate of one's own is trusted by clients if SSL_CERT_FILE names it.`
}

// Run serves until it is stopped, or adds a user.
func (s *Serve) Run(ctx context.Context, app *cli.App) error {
	if s.AddUser != "" {
		return s.addUser(app)
	}
	listener, err := s.listen()
	if err != nil {
		return err
	}
	defer listener.Close()
	handler, closeAll, err := s.handler(ctx, app)
	if err != nil {
		return err
	}
	defer closeAll()
	app.Sayf("serving at %s", s.address(listener))
	if s.Users == "" && !strings.HasPrefix(s.Listen, "unix:") {
		handler = sameMachine(handler)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		// What strangers get wrong before they have asked for anything.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	return s.serve(ctx, listener, srv)
}

func (s *Serve) addUser(app *cli.App) error {
	if s.Users == "" {
		return cli.Usagef("--add-user: give --users, the file to add the user to")
	}
	token, err := server.AddUser(s.Users, s.AddUser, httpstore.Access(s.Access), s.Only, nil)
	if err != nil {
		return &cli.Error{Op: "add the user " + s.AddUser, Err: err}
	}
	app.Sayf("%s has access %q; the token, which is not stored, is", s.AddUser, s.Access)
	_, err = fmt.Fprintln(app.Stdout, token)
	return err
}

// listen takes the address, unless serving there would give away what it should
// not.
func (s *Serve) listen() (net.Listener, error) {
	if (s.TLSCert == "") != (s.TLSKey == "") {
		return nil, cli.Usagef("--tls-cert and --tls-key go together")
	}
	network, address := "tcp", s.Listen
	if path, ok := strings.CutPrefix(s.Listen, "unix:"); ok {
		network, address = "unix", path
	}
	listener, err := net.Listen(network, address)
	if err != nil {
		return nil, &cli.Error{Op: "listen at " + s.Listen, Err: err, Fix: "choose another address with --listen"}
	}
	switch open := !local(listener.Addr()); {
	case open && s.Users == "":
		err = cli.Usagef("--listen %s can be reached from other machines: give --users, or everybody could delete everything", s.Listen)
	case open && s.TLSCert == "" && !s.PlainHTTP:
		err = cli.Usagef("--listen %s can be reached from other machines: give --tls-cert and --tls-key, or --plain-http if something else keeps the tokens secret", s.Listen)
	}
	if err == nil && s.TLSCert != "" {
		var cert tls.Certificate
		if cert, err = tls.LoadX509KeyPair(s.TLSCert, s.TLSKey); err != nil {
			err = &cli.Error{Op: "read the certificate " + s.TLSCert + " and its key", Err: err}
		}
		// HTTP/1.1 only, as clients speak it: several connections.
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	}
	if err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// local reports whether only this machine reaches an address.
func local(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

// sameMachine refuses requests that do not name this machine as one does from
// itself. Where nobody is asked who he is, a page in a browser here could otherwise
// reach the server by a name of its own that it has lead to this machine.
func sameMachine(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "without users, this server is asked for as localhost", http.StatusForbidden)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

func (s *Serve) address(listener net.Listener) string {
	if _, ok := listener.Addr().(*net.UnixAddr); ok {
		return s.Listen
	}
	scheme := "http://"
	if s.TLSCert != "" {
		scheme = "https://"
	}
	return scheme + listener.Addr().String() + "/"
}

// handler opens the repositories.
func (s *Serve) handler(ctx context.Context, app *cli.App) (_ http.Handler, closeAll func(), err error) {
	var stores []store.Store
	closeStores := func() {
		for _, st := range stores {
			st.Close()
		}
	}
	defer func() {
		if err != nil {
			closeStores()
		}
	}()
	var users *server.Users
	if s.Users != "" {
		if users, err = server.OpenUsers(s.Users); err != nil {
			return nil, nil, &cli.Error{Op: "serve", Err: err, Fix: "correct that line, or add users with --add-user"}
		}
		users.OnError = func(err error) { app.Warnf("the users stay as they were: %v", err) }
	}
	places, err := places(s.Repos)
	if err != nil {
		return nil, nil, err
	}
	mux := http.NewServeMux()
	for _, p := range places {
		st, err := dir.Open(p.dir, dir.Options{})
		if err != nil {
			return nil, nil, err
		}
		stores = append(stores, st)
		go clean(ctx, app, st)
		opts := server.Options{Base: p.base(), Check: server.CheckObject, Log: app.Logger()}
		if users != nil {
			opts.Authorize = users.Authorize(p.name)
		}
		one := server.New(st, opts)
		mux.Handle(p.base()+"/", one)
		if p.name != "" {
			mux.Handle(p.base(), one)
		}
	}
	return mux, closeStores, nil
}

// clean removes what writers left behind that were killed, once a day.
func clean(ctx context.Context, app *cli.App, st store.Store) {
	for {
		if _, err := store.Clean(ctx, st, store.LeftoverAge); err != nil && ctx.Err() == nil {
			app.Warnf("remove leftovers in %s: %v", st, err)
		}
		select {
		case <-time.After(24 * time.Hour):
		case <-ctx.Done():
			return
		}
	}
}

// shutdownMax is how long requests may take to end when the server is stopped.
const shutdownMax = 10 * time.Second

// serve answers until the context ends.
func (s *Serve) serve(ctx context.Context, listener net.Listener, srv *http.Server) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return &cli.Error{Op: "serve at " + s.Listen, Err: err}
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownMax)
		defer cancel()
		if srv.Shutdown(last) != nil {
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// place is a repository that is served.
type place struct{ name, dir string }

func (p place) base() string {
	if p.name == "" {
		return ""
	}
	return "/" + p.name
}

// places takes the arguments apart.
func places(args []string) ([]place, error) {
	if len(args) == 0 {
		return nil, cli.Usagef("no repository is named: give its directory")
	}
	var all []place
	seen := make(map[string]bool)
	for _, arg := range args {
		name, path, named := strings.Cut(arg, "=")
		if !named || strings.Contains(name, "/") {
			name, path = "", arg
		}
		if name == "" && len(args) > 1 {
			return nil, cli.Usagef("%s: of several repositories each needs a name: NAME=DIR", arg)
		}
		if name != "" && store.CheckName(name) != nil {
			return nil, cli.Usagef("%s: a name has the characters a-z, 0-9, '.', '_' and '-'", arg)
		}
		if seen[name] {
			return nil, cli.Usagef("%s: there is another repository of that name", arg)
		}
		seen[name] = true
		if path == "" {
			return nil, cli.Usagef("%s: the directory is missing", arg)
		}
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return nil, &cli.Error{Op: "serve " + path, Err: errors.New("it is not a directory")}
		}
		all = append(all, place{name, path})
	}
	return all, nil
}
