# `make demo` builds the program and runs the whole pipeline on the model that ships with it; `make test` runs all
# tests; `make check` formatting, lints and documentation. `make docs` writes the documents that are made from the
# source; `make bench` times the forward pass, every stage and the search for circuits (docs/performance.md);
# `make torture` kills and damages runs for an hour, or for `SECONDS=…`; `make fuzz` tries mutated inputs on each reader
# for a minute or for `SECONDS=…`, and needs a C++ compiler (docs/reliability.md); `make world` rebuilds the model,
# dictionaries and corpus in demo/ (up to two hours on 2 cores).

CARGO ?= cargo

.PHONY: demo test check docs bench torture fuzz world

demo:
	$(CARGO) run --release --locked -- run

test:
	$(CARGO) test --release --locked

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	$(CARGO) clippy --release --locked --test torture -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --no-deps

docs:
	CIRCUIT_ATLAS_UPDATE_DOCS=1 $(CARGO) test --release --locked --test suite are_documented

bench:
	$(CARGO) bench --locked --bench stages --bench discover

torture: SECONDS ?= 3600
torture:
	$(CARGO) test --release --locked --test torture -- --seconds $(SECONDS)

fuzz: SECONDS ?= 60
fuzz:
	CARGO="$(CARGO)" fuzz/run $(SECONDS) $(TARGETS)

world:
	$(CARGO) run --release --locked --example demo_world
