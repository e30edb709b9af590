# The two commands of this project are `make run` and `make test`. Each does all the set-up that it needs by itself.

SHELL := /bin/sh
BIN := .venv/bin

# The first Python that runs and is new enough; a name on PATH may be a shim that does not run.
FIND_PYTHON = for python in $(BIN)/python python3.13 python3.12 python3.11 python3.14 python3; do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo "$$python"; break; fi; done

BOOTSTRAP = python=$${PYTHON:-$$($(FIND_PYTHON))}; \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3" >&2; exit 1; fi; \
	"$$python" scripts/bootstrap.py

ifdef PYTHON
export PYTHON
endif

.PHONY: help setup venv run test check docs format bench soak fuzz guest clean

help:
	@echo 'make run      set up what is missing, boot a sandbox and run a small program in it'
	@echo 'make test     set up what is missing and run the tests, real virtual machines included'
	@echo 'make check    linters, type checker, formatting'
	@echo 'make docs     build the documentation as a site, into build/site; a warning is an error'
	@echo 'make setup    only set up'
	@echo 'make bench    measure, side by side with bare QEMU'
	@echo 'make soak     hundreds of boots, looking for hangs and leaks; takes a while'
	@echo 'make fuzz     say anything to the guest agent for FUZZ_SECONDS=600; FUZZ_SEED=N begins where a failure was'
	@echo 'make guest    compile the guest agent by itself, plainly and with sanitizers'
	@echo 'make format   put Python and C into the form that `make check` asks for'
	@echo 'make clean    remove what was built in the checkout; the data folder stays'

setup:
	@$(BOOTSTRAP)

venv:
	@$(BOOTSTRAP) --venv

run: setup
	@$(BIN)/python -m trio_sandbox.demo

# ARGS passes words on: make test ARGS='-k kernel -x'
test:
	@$(BOOTSTRAP) --tests
	$(BIN)/python -m pytest $(ARGS)

check: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/flake8 trio_sandbox tests scripts benchmarks examples
	$(BIN)/mypy
	$(BIN)/clang-format --style=file:guest/.clang-format --dry-run -Werror benchmarks/*.c
	@$(MAKE) --no-print-directory -C guest check-format CLANG_FORMAT='$(CURDIR)/$(BIN)/clang-format'

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format --style=file:guest/.clang-format -i benchmarks/*.c
	@$(MAKE) --no-print-directory -C guest format CLANG_FORMAT='$(CURDIR)/$(BIN)/clang-format'

# The variable silences an advertisement of the theme.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo 'open build/site/index.html'

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

soak: setup
	$(BIN)/python -m pytest -m soak -o timeout=3600 $(ARGS)

FUZZ_SECONDS = 600

# Failures are kept in .hypothesis/, so the next run begins with them.
fuzz: venv
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_SEED=$(FUZZ_SEED) $(BIN)/python -m pytest tests/guest/test_fuzz.py -s \
		-o timeout=0 $(ARGS)

guest: venv
	$(MAKE) -C guest all sanitized

clean:
	rm -rf build dist guest/build .mypy_cache .ruff_cache .pytest_cache .hypothesis .venv trio_sandbox/_bin
	find trio_sandbox tests scripts benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
