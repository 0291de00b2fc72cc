# make test   every test there is; says what it skipped and why, and ends with the counts
# make demo   three real clusters, a hub and an agent in each; CONTEXTS=a,b uses your own clusters instead

SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help build dashboard test lint unit fleet soak bench fuzz fuzz-api demo clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

build: dashboard ## Build the binaries, dashboard included
	cargo build --workspace --bins

dashboard: hub/dashboard/dist/index.html ## Build the dashboard into hub/dashboard/dist (needs node and npm)

hub/dashboard/node_modules/.package-lock.json: hub/dashboard/package-lock.json
	@if command -v npm >/dev/null; then cd hub/dashboard && npm ci --no-fund --no-audit; \
	else echo "npm is not installed: the hub is built with a page that says so"; fi

hub/dashboard/dist/index.html: hub/dashboard/node_modules/.package-lock.json $(shell find hub/dashboard/src hub/dashboard/index.html hub/dashboard/vite.config.ts 2>/dev/null)
	@if command -v npm >/dev/null; then cd hub/dashboard && npm run build; fi

test: ## Run every test
	@tests/run

lint: ## Check formatting, lints and the layering of the crates
	tests/run lint

unit: ## Run the tests that need no cluster
	tests/run lint unit dashboard

soak: ## The slow suites: five minutes of load, and more
	ACTIVE_MONITOR_LOAD_SECONDS=300 ACTIVE_MONITOR_TAKEOVERS=100 ACTIVE_MONITOR_KILLS=1000 ACTIVE_MONITOR_HUB_KILLS=200 \
	  ACTIVE_MONITOR_OUTAGE_SECONDS=600 tests/run fleet
	ACTIVE_MONITOR_SEEDS=10000 cargo test --workspace --test simulation
	ACTIVE_MONITOR_SEEDS=10000 cargo test --workspace --lib --test session -- flipped at_which_the_log_ends

fuzz: ## Fuzz what others write or send, FUZZ_SECONDS each (60), TARGETS="a b" or all; needs the nightly toolchain and `cargo install cargo-fuzz`
	@for target in $(or $(TARGETS),$$(cargo +nightly fuzz list)); do \
	  mkdir -p fuzz/corpus/$$target && echo "== $$target" && \
	  cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds examples examples/checks -- \
	    -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=65536 -print_final_stats=1 || exit 1; \
	done

fuzz-api: ## Ask a hub all that its OpenAPI document allows, and more (needs schemathesis: pip install -r tests/schemathesis.txt)
	@ACTIVE_MONITOR_EXAMPLES=$(or $(EXAMPLES),100) tests/run fuzz-api

bench: ## Measure what docs/benchmarks.md says (ARGS="--only agent --repeat 1 -o json")
	cargo build --release --workspace --bins
	@target/release/bench $(ARGS)

demo: build ## Show the product: three clusters, a hub, the dashboard (CONTEXTS=a,b for your own clusters)
	@target/debug/demo $(if $(CONTEXTS),--contexts $(CONTEXTS))

clean: ## Remove what was built here
	cargo clean
	rm -rf hub/dashboard/dist hub/dashboard/node_modules
