# `make` lists what can be done. What is missing on this machine is installed, or named in one line.

CARGO   ?= cargo
DRIVERS := target/drivers
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 120
BENCH_ROUNDS ?= 7
BENCH_SECONDS ?= 2
BENCH_OPTIONS ?=
ORACLE := target/oracle
ORACLE_SOURCE ?=

.DEFAULT_GOAL := help
.PHONY: help demo test drivers bench soak fuzz oracle lint doc build clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## Three shards, sample data and a tour; Ctrl-C ends it and removes everything
	@sh .ci/need cargo cc postgres
	@$(CARGO) build --locked --release --quiet
	@target/release/pgherd demo

test: drivers ## All tests, with real servers and real drivers (under ten minutes)
	@$(CARGO) test --locked

# The drivers of the tests live below target/; nothing is installed for the whole machine but programs of the system.
drivers: $(DRIVERS)/ready
$(DRIVERS)/ready: tests/drivers/requirements.txt tests/drivers/package.json
	@sh .ci/need cargo cc postgres python node jdbc
	@echo "make: installing the drivers that the tests use below $(DRIVERS)"
	@rm -rf $(DRIVERS) && mkdir -p $(DRIVERS)
	@python3 -m venv $(DRIVERS)/venv
	@$(DRIVERS)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/drivers/requirements.txt
	@cp tests/drivers/package.json $(DRIVERS)/
	@npm install --prefix $(DRIVERS) --silent --no-audit --no-fund --no-package-lock
	@touch $@

lint: ## Format, clippy and licences, as the CI sees them
	@sh .ci/need cargo cc rustfmt clippy
	@$(CARGO) fmt --check
	@$(CARGO) clippy --locked --all-targets --quiet -- -D warnings
	@$(CARGO) test --locked --quiet --test licences --test architecture

doc: ## The documentation of the code, in target/doc
	@sh .ci/need cargo cc
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

bench: ## What a transaction costs, beside PgBouncer and other peers; writes benches/RESULTS.md (about 35 minutes)
	@sh .ci/need cargo cc postgres python pgbouncer openssl strace valgrind
	@$(CARGO) build --locked --release --quiet --bin pgherd --example floor --example floor_tokio
	@python3 benches/bench.py --rounds $(BENCH_ROUNDS) --seconds $(BENCH_SECONDS) $(BENCH_OPTIONS)

soak: ## Two hundred clients on five servers, and accidents, for SOAK_SECONDS (120) seconds
	@sh .ci/need cargo cc postgres
	@SOAK_SECONDS=$(SOAK_SECONDS) $(CARGO) test --locked --test soak -- --nocapture

fuzz: ## Every fuzz target for FUZZ_SECONDS (60) seconds
	@sh .ci/need cargo cc fuzz
	@test -n "$$(ls fuzz/fuzz_targets/*.rs 2>/dev/null)" || { echo "make: there are no fuzz targets yet"; exit 1; }
	@for target in $$(cd fuzz/fuzz_targets && ls *.rs | sed 's/\.rs$$//'); do \
		$(CARGO) +nightly fuzz run "$$target" -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

# The tool and the tests that it reads stay below target/; what is kept is the page.
oracle: ## Asks PostgreSQL's own parser about its regression tests, for tests/data/oracle.txt (needs the network)
	@sh .ci/need python
	@test -x $(ORACLE)/venv/bin/python || python3 -m venv $(ORACLE)/venv
	@$(ORACLE)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/oracle/requirements.txt
	@$(ORACLE)/venv/bin/python tests/oracle/collect.py $(if $(ORACLE_SOURCE),--source $(ORACLE_SOURCE))

build: ## The release build, target/release/pgherd
	@sh .ci/need cargo cc
	@$(CARGO) build --locked --release

clean: ## Removes everything that was built
	@rm -rf target
