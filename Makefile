# Everything a contributor runs. `make test` needs Rust and Python 3.11 or newer, and installs the rest into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The Python tests and CI's timings want the optimised binary.
PTVIEW := target/release/ptview
PACKAGE := crates/pt-python/python
# uv unpacks torch's gigabytes as they come; pip needs room for the wheels beside them.
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check uv && $(BIN)/uv pip install --quiet --python $(BIN)/python
PYTHON_SOURCES := tests/python testdata/generate benches/python examples/python $(PACKAGE)

.PHONY: test test-rust test-python python lint miri bench bench-peers demo fixtures clean

test: lint test-rust test-python

## Rust: formatting, lints, documentation, tests.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet

# Both runners run the same tests; nextest says more while it runs, but leaves the examples in the documentation out.
test-rust:
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --no-fail-fast && cargo test --workspace --doc --quiet; \
	else \
		cargo test --workspace --no-fail-fast; \
	fi

## Python: real torch is the judge.
test-python: $(VENV)/.installed python
	cargo build --release --quiet --bin ptview --example write_samples
	$(BIN)/ruff check $(PYTHON_SOURCES)
	$(BIN)/ruff format --check $(PYTHON_SOURCES)
	$(BIN)/mypy --config-file $(PACKAGE)/../pyproject.toml $(PACKAGE)/ptview
	$(BIN)/python -m mypy.stubtest ptview --mypy-config-file $(PACKAGE)/../pyproject.toml
	PTVIEW=$(abspath $(PTVIEW)) WRITE_SAMPLES=$(abspath target/release/examples/write_samples) \
		$(BIN)/python -m pytest tests/python -q -rs

## The package `ptview`, built for .venv; its Python half is used where it stands.
python: $(VENV)/.installed
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet

$(VENV)/.installed: tests/python/requirements.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -r $<
	touch $@

## Unit tests of the parsing crates under Miri; needs a nightly toolchain with that component.
miri:
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p pt-format -p pt-index --lib

## Figures, not tests: all of them, then docs/benchmarks.md. The quick ones are small and leave some
## out, as their page says, which is in target/quick: two minutes, when all is built.
bench: python
	$(INSTALL) -r benches/python/requirements.txt
	PTVIEW_TORCH=$(abspath $(BIN)/python) cargo bench --workspace
	$(MAKE) bench-peers
	$(BIN)/python -W ignore benches/python/rivals.py
	$(BIN)/python -W ignore benches/python/parts.py
	$(BIN)/python benches/python/report.py

## Other readers of PyTorch files beside ours; builds them all first, which takes minutes.
bench-peers:
	cargo bench --manifest-path benches/peers/Cargo.toml

bench-quick: python
	$(INSTALL) -r benches/python/requirements.txt
	PTVIEW_QUICK=1 cargo bench --bench curves
	$(BIN)/python -W ignore benches/python/rivals.py --quick --rounds 1 --limit 0.3 --out target/quick/bench
	$(BIN)/python -W ignore benches/python/parts.py --files 1000 --out target/quick/bench
	$(BIN)/python benches/python/report.py --figures target/quick/bench --out target/quick

demo:
	cargo run --release -- demo

## Writes testdata/fixtures and testdata/expected.json anew, with the torch in .venv.
fixtures: $(VENV)/.installed
	cd testdata && ../$(BIN)/python -m generate

clean:
	cargo clean
	rm -rf $(VENV)
