# make demo   a whole cluster with a small shop in it, until Ctrl-C (ONCE=1: shows it and ends)
# make test   every test, against real PostgreSQL and real etcd, with the race detector
# make build  the binaries, into bin/
# make help   all targets

GO      ?= go
BIN     := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# libpg_query and the race detector are C.
export CGO_ENABLED := 1

COMMANDS := $(notdir $(wildcard cmd/*))
# Packages under test; PKG=./internal/manager/... narrows it.
PKG      ?= ./...
# Packages at a time. Each starts PostgreSQL and etcd processes of its own, and waits
# for them a third of its time.
TEST_P   ?= 3

.DEFAULT_GOAL := build
.PHONY: build demo test test-short test-regress test-drivers test-suites test-cases deps lint fmt fuzz bench bench-go bench-relay soak chaos clean help

build: deps ## the binaries, into bin/
	@mkdir -p $(BIN)
	@for c in $(COMMANDS); do $(GO) build -ldflags '$(LDFLAGS)' -o $(BIN)/$$c ./cmd/$$c || exit 1; done

demo: build ## a local cluster with a shop in it; ONCE=1 shows it and ends
	@$(BIN)/shardctl dev --demo $(if $(ONCE),--once)

# The packages that take longest begin first, and nothing is printed before they end.
LONGEST  := $(if $(filter ./...,$(PKG)),./test/robustness ./internal/router ./internal/devcluster)

test: deps ## every test, with the race detector
	@# What has to be compiled is first: tests beside compilers wait for the processors.
	@$(if $(LONGEST),$(GO) build -race ./...)
	@$(if $(LONGEST),echo "the longest packages are first: their results come after some minutes")
	SHARDING_TEST_STRICT=1 $(GO) test -race -timeout 25m -p $(TEST_P) $(LONGEST) $(PKG)
ifeq ($(PKG),./...)
	@# The race detector allocates: what must not is tested without.
	SHARDING_TEST_STRICT=1 $(GO) test -timeout 5m -run TestAllocations ./internal/router
endif

test-short: deps ## without the race detector and the longer forms
	SHARDING_TEST_STRICT=1 $(GO) test -short -timeout 8m -p $(TEST_P) $(PKG)

# LANG is also the locale of whoever calls: only what make's command line says counts.
test-drivers: deps ## programs with real drivers through the router; LANG=node, SKIP=java, DIRECT=1
	SHARDING_TEST_STRICT=1 SHARDING_DRIVERS='$(if $(filter command%,$(origin LANG)),$(LANG),all)' SHARDING_DRIVERS_SKIP='$(SKIP)' \
	  SHARDING_DRIVERS_DIRECT='$(DIRECT)' LANG=C.UTF-8 $(GO) test -v -count=1 -timeout 0 ./test/drivers

deps: ## install what is missing beside Go (PostgreSQL 12+, a C compiler)
	@./scripts/install-deps.sh

lint: ## gofmt, go vet, and golangci-lint where it is installed
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	@if command -v golangci-lint >/dev/null 2>&1; then golangci-lint run; \
	  else echo "golangci-lint is not installed: gofmt and go vet only"; fi

fmt: ## gofmt -w
	@gofmt -w $$(git ls-files '*.go')

fuzz: deps ## every fuzz target in turn; FUZZTIME=30s each
	@./scripts/fuzz.sh $(or $(FUZZTIME),30s)

bench: deps ## the router against PgBouncer and a direct connection, as ratios, in one run; BENCH="-clients 16" narrows it
	$(GO) run ./bench/router bench $(BENCH)

bench-go: deps ## the Go benchmarks of all packages
	$(GO) test -run '^$$' -bench . -benchmem $(PKG)

bench-relay: deps ## the bare relay against PgBouncer, as ratios, in one run
	$(GO) run ./bench/relay bench

soak: deps ## 10 minutes of mixed load with random client kills; DURATION=1m for less
	SHARDING_TEST_STRICT=1 SHARDING_SOAK=$(or $(DURATION),10m) $(GO) test -v -count=1 -timeout 0 -run 'TestSoak' ./test/robustness

chaos: deps ## every step of two-phase commit with every kind of kill, then 10 minutes of random kills
	SHARDING_TEST_STRICT=1 SHARDING_TEST_LONG=1 SHARDING_CHAOS=$(or $(DURATION),10m) \
	  $(GO) test -v -count=1 -timeout 0 ./internal/twophase ./test/robustness

test-regress: deps ## PostgreSQL's own regression suite through the router, on a keyspace of one shard
	@./test/regress/fetch.sh $(or $(REGRESS_DIR),/var/tmp/sharding-regress)
	SHARDING_REGRESS=$(or $(REGRESS_DIR),/var/tmp/sharding-regress) $(GO) test -v -count=1 -timeout 60m -run TestRegress ./test/regress

test-suites: deps ## the test suites of pgx, lib/pq, go-pg and SQLAlchemy through the router; SUITES=pgx, TARGETS=one
	SHARDING_TEST_STRICT=1 SHARDING_SUITES='$(or $(SUITES),all)' SHARDING_SUITES_TARGETS='$(TARGETS)' \
	  $(GO) test -v -count=1 -timeout 0 -run TestSuites ./test/suites

test-cases: deps ## cases from public bug reports, of the directory CASES; KINDS=a,b, ONLY=C001
	@test -n '$(CASES)' || { echo 'which cases? make test-cases CASES=DIRECTORY'; exit 2; }
	SHARDING_TEST_STRICT=1 SHARDING_CASES='$(CASES)' SHARDING_CASES_KINDS='$(KINDS)' SHARDING_CASES_ONLY='$(ONLY)' \
	  $(GO) test -v -count=1 -timeout 0 -run TestCases ./test/cases

clean: ## remove the binaries
	rm -rf $(BIN)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
