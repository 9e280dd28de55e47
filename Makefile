# bk: make build, make demo, make test, make install. README.md says more.

GO       ?= go
PREFIX   ?= /usr/local
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo devel)
LDFLAGS  := -s -w -X github.com/bk-backup/bk/cmd/internal/cli.Version=$(VERSION)
PROGRAMS := $(notdir $(wildcard cmd/bk cmd/bk-*))
FUZZTIME ?= 10s
SCRIPTS  := cmd/internal/scripts
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.0

.PHONY: build demo test test-race interop bench fuzz lint install clean

build: ## all programs into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

demo: build ## the main job on real input, with explanations
	$(SCRIPTS)/demo.sh bin

test: ## all tests that need Go alone
	$(GO) test -timeout 30m ./...

test-race: ## the same under the race detector
	$(GO) test -race -timeout 40m ./...

interop: build ## install the peers (Debian packages) and test against them
	$(SCRIPTS)/interop.sh bin

bench: build ## benchmarks, beside the peers where they are installed
	$(SCRIPTS)/bench.py bin $(PARTS)

fuzz: ## every fuzz target for FUZZTIME
	$(SCRIPTS)/fuzz.sh $(FUZZTIME)

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l cmd format repo spec)" || { gofmt -l cmd format repo spec; echo "gofmt -w these files"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) -checks inherit,-SA4023 ./... # SA4023 mistakes cmp.Or of errors

install: build ## programs, man pages and completions below PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	@set -e; for p in $(PROGRAMS); do \
	  install -m 755 bin/$$p $(DESTDIR)$(PREFIX)/bin/$$p; \
	  bin/$$p --man > $(DESTDIR)$(PREFIX)/share/man/man1/$$p.1; \
	  bin/$$p --completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$p; \
	  bin/$$p --completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$p; \
	  bin/$$p --completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$p.fish; \
	done; echo "installed $(words $(PROGRAMS)) programs below $(DESTDIR)$(PREFIX)"

clean:
	rm -rf bin
