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
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TESTNET := $(TARGET_DIR)/release/onespend-testnet
# Shell text, run inside a recipe: the path is known only after setup.
FIND_BITCOIND := BITCOIND_EXE="$$(testnet/bitcoind.sh)"; export BITCOIND_EXE
FIND_PYTHON := ONESPEND_PYTHON="$$(testnet/python.sh)"; export ONESPEND_PYTHON

.PHONY: help setup setup-test setup-fuzz fuzz build build-failpoints build-sabotage demo test lint bench chaos chaos-selftest up down fmt

help: ## list the commands
	@echo "onespend: no coin spent twice, no payment paid twice"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: ## install what a cluster needs and obtain bitcoind (built from source where no download is possible)
	@testnet/setup.sh demo
	@testnet/bitcoind.sh >/dev/null

setup-test: ## the same, and what only the tests need
	@testnet/setup.sh test
	@testnet/bitcoind.sh >/dev/null

setup-fuzz: ## cargo-fuzz, and what it needs to build
	@testnet/setup.sh fuzz

build: ## build everything in release
	$(CARGO) build --release --locked --workspace --bins

# Binaries for the harness alone, beside the one that is deployed: its features are off in every other build.
build-failpoints:
	@$(CARGO) build --release --locked --workspace --features onespend/failpoints --bin onespend-failpoints

build-sabotage:
	@$(CARGO) build --release --locked --workspace --features onespend/sabotage --bin onespend-sabotage

demo: setup build ## a cluster pays 200 payments while its leader is killed; ends with a report
	@$(FIND_BITCOIND); $(TESTNET) demo --report target/demo/report.json $(ARGS)

bench: setup build ## closed-loop load of reserve and release at 1, 16, 64 and 256 callers
	@$(FIND_BITCOIND); $(TESTNET) bench --report target/bench/report.json $(ARGS)

chaos: setup build build-failpoints ## faults of every kind under load, judged by five oracles: make chaos SEED=7 DURATION_S=300
	@$(FIND_BITCOIND); $(TESTNET) chaos $(if $(SEED),--seed $(SEED)) $(if $(DURATION_S),--duration-s $(DURATION_S)) --report target/chaos/report.json $(ARGS)

chaos-selftest: setup build build-sabotage ## the same with one guard of the service taken away after the other: each must be noticed
	@$(FIND_BITCOIND); $(TESTNET) chaos-selftest $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: setup-fuzz ## every reader of bytes from outside, for a minute each: make fuzz FUZZ_S=600 ARGS="rows"
	@FUZZ_S="$(or $(FUZZ_S),60)" testnet/fuzz.sh $(ARGS)

up: setup build ## start a cluster that keeps running and print how to reach it
	@$(FIND_BITCOIND); $(TESTNET) up --detach $(ARGS)

down: ## stop the cluster that `make up` started
	@$(TESTNET) down $(ARGS)

lint: ## formatting, clippy and documentation, each with warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --release --locked -p onespend-adapters -p onespend --lib --bins --features onespend/sabotage -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check bans licenses sources; else echo "cargo-deny is not installed: bans and licences are not checked here"; fi

test: setup-test lint build-failpoints ## everything: setup, bitcoind, lint, all tests. What .ci/run calls
	@$(FIND_BITCOIND); $(FIND_PYTHON); $(CARGO) test --release --locked --workspace
	@$(CARGO) test --release --locked -p onespend-adapters --lib --features failpoints failpoints

fmt: ## format the code
	$(CARGO) fmt --all
