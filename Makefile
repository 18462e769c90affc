# make help lists what there is to do.
SHELL := bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Debian's Go packages are older than go.mod asks for: let them fetch the right
# toolchain through the module proxy, as upstream's do by default.
export GOTOOLCHAIN ?= auto
export CGO_ENABLED ?= 0

# Looked for when used: scripts/setup may just have installed it.
go = $(shell scripts/find-go)
version = $(shell cat VERSION 2>/dev/null || git describe --tags --always --dirty 2>/dev/null || echo unknown)

# A suite is a folder below test with a program `run`; it ends with its own result.
suites := $(patsubst test/%/run,test-%,$(wildcard test/*/run))
# Alone, after the others: an emulated machine is slow enough by itself.
last := test-vm

.PHONY: help build demo test test-unit $(suites) lint fuzz trees bench soak clean clean-trees

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
	@$(if $(suites),printf '%-16sone suite of make test\n' $(suites))

build: ## build bin/nuc
	@scripts/setup build
	$(go) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(version)' -o bin/nuc ./go/cmd/nuc

demo: ## PostgreSQL and nginx under systemd in a container, from nothing
	@scripts/setup demo
	@$(MAKE) --no-print-directory build
	@scripts/demo

# Two suites at a time, each one's output in one piece, and all of them even
# when one fails. Trees come first: mmdebstrap would starve a timed test.
test: ## everything that CI runs
	@scripts/setup test
	@$(MAKE) --no-print-directory -j2 -k -Otarget lint trees
	@failed=; $(MAKE) --no-print-directory -j2 -k -Otarget test-unit $(filter-out $(last),$(suites)) || failed=1; \
	$(MAKE) --no-print-directory $(last) && test -z "$$failed"

test-unit $(suites): build

test-unit: ## the Go packages' own tests, with the race detector
	CGO_ENABLED=1 $(go) test -race ./go/... ./test/harness/... ./test/jail/... ./test/leaktest/...

$(suites): test-%:
	test/$*/run

fuzz: ## each fuzz target, or those of FUZZ=PATTERN, for FUZZTIME=60s
	FUZZTIME=$(or $(FUZZTIME),60s) test/fuzz/run $(FUZZ)

trees: build ## build the Debian trees that the tests use
	@scripts/tree machine
	@for tree in bookworm trixie sid nested guest nix $(if $(NIXPKGS),nixos); do scripts/tree tar $$tree || exit; done

lint: ## gofumpt, vet, staticcheck, shellcheck
	@scripts/lint

bench: ## measure, into a table and build/bench.json
	@scripts/setup bench
	@$(MAKE) --no-print-directory build
	test/bench/bench

soak: build ## a link under 1,000 connections a second for SOAK=10m, then memory for MEMORY=30m
	@scripts/setup test
	NUC_SOAK=$(or $(SOAK),10m) NUC_SOAK_MEMORY=$(or $(MEMORY),30m) $(go) test -count=1 -v -timeout 3h -parallel 1 -run 'TestLinkSoak|TestSoak' ./test/integration

clean: ## remove what was built, not what is cached
	rm -rf bin build

clean-trees: ## remove the cached Debian trees
	scripts/tree clean
