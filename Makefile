# On a machine with Go, git and make, two commands do all the set-up: `make demo` and `make test`.

SHELL := /bin/bash

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
# What nobody asks of this binary: Markdown from the command line's library, and gRPC's own traces beside OpenTelemetry's.
TAGS    := urfave_cli_no_docs,grpcnotrace
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# Tools are pinned in a module of their own, so that their libraries never choose ours.
TOOL     := go tool -modfile=$(CURDIR)/tools/go.mod
BUF      ?= $(TOOL) buf
GOLANGCI ?= $(TOOL) golangci-lint
VULN     ?= $(TOOL) govulncheck

# End-to-end tests assert that a healthy cluster holds no election. They get the machine to themselves, so
# packages of them run one after the other. Mostly they wait, as others do, so more run at once than there are cores.
E2E       := ./e2e/...
FUZZ_TIME ?= 10s

# `make chaos CHAOS_ROUNDS=3 CHAOS_SEED=4711` repeats a storm; CHAOS_FLAGS are those of e2e/chaos/storm_test.go.
CHAOS_ROUNDS ?= 20
CHAOS_SEED   ?= 0
CHAOS_FLAGS  ?=

# `make sim SIM_SEED=4711 SIM_RUNS=1` repeats a schedule; SIM_FLAGS are those of internal/sim/sim_test.go.
SIM_RUNS  ?= 500
SIM_SEED  ?= 0
SIM_FLAGS ?=

.DEFAULT_GOAL := build
.PHONY: help build generate check-generated fmt check-fmt lint vuln tidy check-tidy setup test test-unit test-e2e large chaos sim man package demo bench fuzz clean

help: ## show what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/wasmatrix, one static binary
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o bin/wasmatrix .

generate: ## generate the wire code from proto/
	cd proto && $(BUF) generate

check-generated: ## fail if the wire code is not what proto/ says
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	(cd proto && $(BUF) generate -o "$$fresh") && \
	diff -r <(cd proto && find . -name '*.pb.go' | sort) <(cd "$$fresh" && find . -name '*.pb.go' | sort) && \
	(cd "$$fresh" && find . -name '*.pb.go') | while read -r f; do diff -q "proto/$$f" "$$fresh/$$f" || exit 1; done || \
	{ echo 'the generated code is not up to date: run `make generate`' >&2; exit 1; }

fmt: ## format the code and order its imports
	$(GOLANGCI) fmt

check-fmt: ## fail if something is not formatted
	$(GOLANGCI) fmt --diff

lint: ## vet, golangci-lint, buf lint
	go vet ./...
	$(GOLANGCI) run
	cd proto && $(BUF) lint

vuln: ## look for known vulnerabilities in what the binary uses
	$(VULN) ./...

tidy: ## tidy the modules
	go mod tidy
	cd tools && go mod tidy
	cd tools/release && go mod tidy

check-tidy: ## fail if go.mod is not tidy
	go mod tidy -diff

setup: ## install what the tests need and the machine lacks
	@scripts/setup.sh

# wazero compiles a module of Go for a minute with the detector in it, so its compiler goes without. No more of it may:
# what of sync is generic is compiled into whichever package uses it, and a program keeps one such copy for all.
WAZEVO := github.com/tetratelabs/wazero/internal/engine/wazevo
RACE := -race -gcflags='$(WAZEVO)/ssa=-race=false' -gcflags='$(WAZEVO)/backend/...=-race=false'

test: test-unit test-e2e ## run all tests with the race detector

test-unit: setup ## run all tests but the end-to-end ones
	go test $(RACE) -timeout 6m -p 3 $$(go list ./... | grep -v -e '/e2e$$' -e '/e2e/')

test-e2e: setup ## run real clusters on loopback
	go test $(RACE) -timeout 8m -count=1 -p 1 -parallel 4 $(E2E)

large: setup ## run a large module of others, CPython, with and without metering
	WASMATRIX_TEST_LARGE=1 go test -count=1 -v -run CPython ./runtime/meter

chaos: setup ## break a real cluster at random for CHAOS_ROUNDS rounds and look for what is lost or double
	go test -timeout 0 -count=1 -v -run 'Storm' ./e2e/chaos -chaos.rounds $(CHAOS_ROUNDS) -chaos.seed $(CHAOS_SEED) $(CHAOS_FLAGS)

sim: ## run SIM_RUNS random schedules of simulated clusters, hundreds a minute, and look for the same
	go test -timeout 0 -count=1 -v -run 'ManySchedules' ./internal/sim -sim.runs $(SIM_RUNS) -sim.seed $(SIM_SEED) $(SIM_FLAGS)

man: build ## write the manual pages to bin/man
	rm -rf bin/man && bin/wasmatrix man --dir bin/man

# What a release builds for: linux-amd64, or all.
PLATFORMS ?= linux-amd64
RELEASER  := go tool -modfile=$(CURDIR)/tools/release/go.mod goreleaser

package: setup ## make archive, packages and SBOM as a release does, install them into temporary roots, and run what is in them
	$(RELEASER) check
	@# A clone need not have a remote, and goreleaser wants one to know what is released.
	GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=remote.origin.url GIT_CONFIG_VALUE_0=https://github.com/wasmatrix/wasmatrix \
	PLATFORMS=$(PLATFORMS) $(RELEASER) release --snapshot --clean
	go test -count=1 ./deploy -dist $(CURDIR)/dist

demo: build ## three real nodes on loopback, the leader killed, nothing left behind
	@scripts/demo.sh

bench: build setup ## measure the figures that the project promises
	go run ./bench

fuzz: ## fuzz every decoder of outside bytes for FUZZ_TIME each
	@scripts/fuzz.sh $(FUZZ_TIME)

clean: ## remove what was built
	rm -rf bin dist coverage.out
