# Everything a newcomer types: `make demo`, `make test`; `make help` lists the rest.
VENV ?= .venv
PY := '$(VENV)/bin/python'

# Files are begun in the order of tests/support/length.py, and each is run by one process.
PYTEST = $(PY) -m pytest $(or $(PYTEST_ARGS),-n auto --dist loadfile --no-loadscope-reorder --durations=30)

.PHONY: help demo test test-rest test-all check docs man bench crash-test prove-debian release install setup clean

help:           ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## */\t/' | expand -t 14

setup:          ## install what is missing to run (says what, first)
	@tools/setup run

demo: setup     ## start the daemon, drop a sample folder, show the result
	@$(PY) tools/demo

test:           ## install what is missing and run all checks and tests, of slow tests a part
	@tools/setup test
	@$(MAKE) --no-print-directory check
	@$(if $(PYTEST_ARGS),,TESTS_PART=first) $(PYTEST)

test-rest:      ## run what `make test` leaves out, as it is slow by nature
	@tools/setup test
	@$(if $(PYTEST_ARGS),,TESTS_PART=rest) $(PYTEST)

test-all: test test-rest  ## run all checks and all tests

check:          ## style, types, layers and dependencies; quick
	@'$(VENV)/bin/ruff' check .
	@'$(VENV)/bin/ruff' format --check .
	@'$(VENV)/bin/mypy'
	@'$(VENV)/bin/lint-imports' --no-logo
	@'$(VENV)/bin/deptry' --no-ansi dittohead
	@'$(VENV)/bin/deptry' --no-ansi --config send/pyproject.toml send

docs:           ## build the documentation as a site, in site/
	@tools/setup docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "docs: site/index.html"

man:            ## make the man pages, in build/man
	@tools/setup run
	@$(PY) tools/manpages build/man

bench:          ## run the benchmarks against their peers and print a table
	@tools/setup test
	@$(PY) -m benchmarks

crash-test:     ## kill the daemon a thousand times (KILLS=1000 FOLDERS=200 SEED=1) and check it all
	@tools/setup test
	@$(PY) -m tests.crash --kills $(or $(KILLS),1000) --folders $(or $(FOLDERS),200) --seed $(or $(SEED),1)

prove-debian:   ## as root: both commands in bare systems of Debian 12 and 13 (SUITES, WHO, PYTEST_ARGS)
	@tools/prove-debian $(SUITES)

release:        ## build the source distribution and the wheel of what is committed, in dist/
	@tools/setup test
	@$(PY) tools/release

install:        ## install the service on this machine (says what, first)
	@tools/install

clean:          ## remove what make made here
	rm -rf '$(VENV)' .setup .demo site build dist *.egg-info
