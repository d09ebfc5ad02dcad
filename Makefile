# The commands of this project. Everything is built in one profile (release), so nothing is compiled twice.
# None of them prompts. Arguments for demo, bench and up:  make demo ARGS="--payments 50 --seed 7"
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules

CARGO ?= cargo
ARGS ?=
SEED ?=
DURATION_S ?=
RUNS ?=
COMMANDS ?=
CARGO_DENY_VERSION := 0.20.2
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TESTNET := $(TARGET_DIR)/release/onespend-testnet
# Shell text, run inside a recipe: the path is known only after setup.
FIND_BITCOIND := BITCOIND_EXE="$$(testnet/bitcoind.sh)"; export BITCOIND_EXE
FIND_ENVOY := ONESPEND_ENVOY="$$(testnet/envoy.sh)"; export ONESPEND_ENVOY
FIND_S3 := ONESPEND_S3_PYTHON="$$(testnet/s3.sh)"; export ONESPEND_S3_PYTHON
FIND_PYTHON := ONESPEND_PYTHON="$$(testnet/python.sh)"; export ONESPEND_PYTHON

.PHONY: help setup setup-test setup-deny setup-deb setup-fuzz fuzz simulate model-check build ready build-failpoints build-sabotage deb images demo test lint bench bench-routing bench-failover chaos chaos-selftest up down fmt

help: ## list the commands
	@echo "onespend: no coin spent twice, no payment paid twice"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## install what a cluster needs and obtain bitcoind (built from source where no download is possible)
	@testnet/setup.sh demo
	@testnet/bitcoind.sh >/dev/null

setup-test: ## the same, and what only the tests need
	@testnet/setup.sh test
	@testnet/bitcoind.sh >/dev/null

setup-deny: ## cargo-deny, with which `make lint` checks licences too; continuous integration has it
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --version $(CARGO_DENY_VERSION) --locked

setup-deb: ## cargo-deb, in the project's cache: with it `make deb` makes the Debian package, and `make test` one to look at
	@testnet/cargo-deb.sh >/dev/null

setup-fuzz: ## cargo-fuzz, and what it needs to build
	@testnet/setup.sh fuzz

build: ## build everything in release
	$(CARGO) build --release --locked --workspace --bins

# What `make setup build` makes, on a new machine in less time: each of the two builds has stretches that keep one core idle.
ready:
	@testnet/setup.sh demo
	@QUIET=1 setsid testnet/bitcoind.sh >/dev/null & bitcoind=$$!; \
	trap 'kill -- -$$bitcoind 2>/dev/null || true' EXIT; \
	$(CARGO) build --release --locked --workspace --bins; \
	if kill -0 $$bitcoind 2>/dev/null; then echo "waiting for bitcoind to be built"; fi; \
	wait $$bitcoind; trap - EXIT

# Binaries for the harness alone, beside the one that is deployed: its features are off in every other build.
build-failpoints:
	@$(CARGO) build --release --locked --workspace --features onespend/failpoints --bin onespend-failpoints

build-sabotage:
	@$(CARGO) build --release --locked --workspace --features onespend/sabotage --bin onespend-sabotage

deb: setup-deb build ## the Debian package of the daemon and command line, in target/debian
	@docs/deploy/debian/package.sh

images: build ## container images for docs/deploy/container/compose.yaml, from what is built here
	@docs/deploy/container/images.sh

demo: ready ## a cluster pays 200 payments while its leader is killed; ends with a report
	@$(FIND_BITCOIND); $(TESTNET) demo --report target/demo/report.json $(ARGS)

bench: ready ## closed-loop load of reserve and release at 1, 16, 64 and 256 callers
	@$(FIND_BITCOIND); $(TESTNET) bench --report target/bench/report.json $(ARGS)

bench-routing: setup-test build ## kills, hand-overs and rolling restarts through HAProxy, Envoy, nginx and the client
	@$(FIND_BITCOIND); $(FIND_ENVOY); $(TESTNET) routing $(if $(SEED),--seed $(SEED)) --report target/routing/report.json $(ARGS)

bench-failover: ready build-failpoints ## how long a caller waits for the next leader, and a balancer for /primary; etcd beside it
	@$(FIND_BITCOIND); $(TESTNET) failover $(if $(SEED),--seed $(SEED)) --report target/failover/report.json $(ARGS)

chaos: ready build-failpoints ## faults of every kind under load, judged by five oracles: make chaos SEED=7 DURATION_S=300
	@$(FIND_BITCOIND); $(TESTNET) chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION_S),--duration-s $(DURATION_S)) --report target/chaos/report.json $(ARGS)

chaos-selftest: ready build-sabotage ## the same with one guard of the service taken away after the other: each must be noticed
	@$(FIND_BITCOIND); $(TESTNET) chaos-selftest $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate: ## three nodes in one thread, whose every accident a seed decides: make simulate SEED=1 RUNS=10000
	@ONESPEND_SIMULATION_SEED="$(or $(SEED),1)" ONESPEND_SIMULATIONS="$(or $(RUNS),2000)" \
	$(CARGO) test --release --locked --workspace --lib -- --nocapture --exact \
	simulation::story::tests::no_seed_leads_to_a_double_spend_or_a_lost_answer

model-check: ## random commands against a model of the rules: make model-check SEED=1 COMMANDS=1000000
	@ONESPEND_CORE_SEED="$(or $(SEED),1)" ONESPEND_CORE_COMMANDS="$(or $(COMMANDS),1000000)" \
	$(CARGO) test --release --locked --workspace --test random_commands -- --nocapture

fuzz: setup-fuzz ## random bytes to what reads requests, messages, logs and states, for a minute each: make fuzz FUZZ_S=600 ARGS="rows"
	@FUZZ_S="$(or $(FUZZ_S),60)" testnet/fuzz.sh $(ARGS)

up: ready ## start a cluster that keeps running and print how to reach it
	@$(FIND_BITCOIND); $(TESTNET) up --detach $(ARGS)

down: ## stop the cluster that `make up` started
	@$(TESTNET) down $(ARGS)

lint: ## formatting, clippy and documentation, each with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release --locked -p onespend-adapters -p onespend --lib --bins --features onespend/sabotage -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check bans licenses sources; else echo "NOT CHECKED: banned crates, licences and sources, because cargo-deny is not installed; make setup-deny installs it"; fi

# The tests against real processes wait most of the time, so what does not wait runs beside them and gives way to them.
test: setup-test build-failpoints ## everything: setup, bitcoind, lint, all tests. What .ci/run calls
	$(CARGO) test --release --locked --workspace --no-run
	@$(FIND_BITCOIND); $(FIND_PYTHON); $(FIND_S3); $(FIND_ENVOY); testnet/test.sh

fmt: ## format the code
	$(CARGO) fmt --all
