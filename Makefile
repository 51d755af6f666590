# Thin names for what `cargo xtask` does; `make help` lists them.
CARGO ?= cargo
.DEFAULT_GOAL := help
.PHONY: help test demo build clean-cluster clean-cache

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

test: prerequisites ## All that CI runs: fmt, clippy, unit, snapshot and e2e tests, docs, licences
	@$(CARGO) xtask test

demo: prerequisites ## A walk through the main job, in a cluster of its own (POSTERN_DEMO=current: in yours)
	@demo/run.sh

build: prerequisites ## The static programs that people install
	@$(CARGO) xtask dist

clean-cluster: ## Take the test cluster down; leaves nothing behind but caches
	@$(CARGO) xtask cluster down

clean-cache: ## Remove what is kept outside the checkout (building it again takes minutes)
	@$(CARGO) xtask cluster clean-cache

.PHONY: prerequisites
prerequisites:
	@command -v $(CARGO) >/dev/null || { echo "missing: cargo (Rust 1.89 or newer, https://rustup.rs)" >&2; exit 1; }
	@command -v cc >/dev/null || { echo "missing: cc (a C compiler and linker; on Debian: apt-get install gcc)" >&2; exit 1; }
