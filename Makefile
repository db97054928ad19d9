# `make demo` builds the program and runs the whole pipeline on the model that ships with it; `make test` runs all tests.
# `make world` rebuilds the model, dictionaries and corpus in demo/ (about 20 minutes on 2 cores).

CARGO ?= cargo

.PHONY: demo test world

demo:
	$(CARGO) run --release --locked -- run

test:
	$(CARGO) test --release --locked

world:
	$(CARGO) run --release --locked --example demo_world
