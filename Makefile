# make test   every test there is; says what it skipped and why, and ends with the counts
# make demo   three real clusters, a hub and an agent in each; CONTEXTS=a,b uses your own clusters instead

SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help build dashboard test lint unit fleet soak demo clean

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
	ACTIVE_MONITOR_LOAD_SECONDS=300 tests/run fleet

demo: build ## Show the product: three clusters, a hub, the dashboard (CONTEXTS=a,b for your own clusters)
	@target/debug/demo $(if $(CONTEXTS),--contexts $(CONTEXTS))

clean: ## Remove what was built here
	cargo clean
	rm -rf hub/dashboard/dist hub/dashboard/node_modules
