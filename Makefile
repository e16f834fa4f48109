# `make run` and `make test` do everything that a fresh Debian 13 machine needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON := .venv/bin/python
# Extra arguments for `make run` (trimtab up), and for the tests and tools that a target runs.
ARGS ?=
# Which of several of a target: `make sim KIND=sweep`.
KIND ?=
# Another Python: `make ring KIND=python` runs unit and golden tests on it.
OTHER ?= python3.11
# A folder: of Compose projects (`make ring KIND=compose-diff`), or docker-py's checkout (KIND=docker-py).
DIR ?=
# Processes that run test files side by side: as root three more than processors (tests/conftest.py) and
# at most five, each with an engine of its own; else there is one engine for all.
JOBS ?= $(if $(filter 0,$(shell id -u)),auto,0)

# Without bytecode each process compiles again what the tests import.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(PYTHON) -m pytest
SPREAD := --dist loadfile --no-loadscope-reorder

.PHONY: help setup users engine run down test check lint format sim fuzz ring bench mutants docs screens deb release lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' \
	  | while IFS=$$'\t' read -r target text; do printf '  make %-8s %s\n' "$$target" "$$text"; done

setup: ## the virtual environment with trimtab in it
	@tools/setup

# As root: the system users, which processes without privileges run as.
users: setup
	@tools/setup users

# The engine's package, where an engine of their own is what tests run on.
engine: users
	@$(PYTHON) tools/engine install

# exec, and one shell for both lines: Ctrl-C must reach trimtab itself, which stops in order.
run: users ## converge desired-state/ on this machine and keep it so, until Ctrl-C
	@$(PYTHON) tools/engine up
	@$(PYTHON) tools/images
	@echo "policy: development, since the demo's images are built here and trusted by their name;"
	@echo "  for services of your own: trimtab up DIR --policy home, or trimtab policy init (docs/policy.md)"
	@DOCKER_HOST="$$($(PYTHON) tools/engine host)"; export DOCKER_HOST; \
	  $(PYTHON) tools/earlier-demo desired-state --state .state && \
	  exec .venv/bin/trimtab up desired-state --policy development --state .state $(ARGS)

down: setup ## remove what `make run` made (volumes stay), then the engine if it started one
	@DOCKER_HOST="$$($(PYTHON) tools/engine host)"; export DOCKER_HOST; \
	  [ ! -e .state ] || ! $(PYTHON) tools/engine status >/dev/null || .venv/bin/trimtab down --state .state \
	  || { echo "make: the engine runs on; 'tools/engine down' stops it all the same" >&2; exit 1; }
	@$(PYTHON) tools/engine down

test: engine ## every test; as root on an engine of its own
	@$(PYTEST) --numprocesses $(JOBS) --maxprocesses 5 $(SPREAD) $(ARGS)

check: setup ## the inner loop: lint, types, import contracts, unit and golden tests (the slow ones: make test)
	@$(PYTEST) -q -m "not slow" --numprocesses $$(($$(nproc) + 1)) --maxprocesses 4 $(SPREAD) tests/unit tests/golden $(ARGS)

lint: setup ## ruff, mypy, the import contracts, and code that stands twice
	@$(PYTEST) -q tests/unit/test_lint.py

format: setup ## lay out the code as lint wants it
	@.venv/bin/ruff check --quiet --fix-only . && .venv/bin/ruff format .

sim: setup ## the simulation: KIND=worlds (--seeds N, --seed N), sweep, agreement, planted, budget, identity (--stories N)
	@case "$(or $(KIND),worlds)" in \
	  worlds) $(PYTEST) tests/sim --seeds 200 $(ARGS);; \
	  sweep) $(PYTEST) tests/sim -k crash_sweep --moments 0 $(ARGS);; \
	  agreement) $(PYTEST) tests/sim/test_agreement.py --seeds 200 $(ARGS);; \
	  planted) $(PYTEST) tests/sim -k planted --anew $(ARGS);; \
	  budget) $(PYTEST) -q tests/sim/test_budget_model.py -k share --stories 100000 $(ARGS);; \
	  identity) $(PYTEST) -q tests/sim/test_identity_model.py -k reaches --stories 100000 $(ARGS);; \
	  *) echo "make sim: KIND is worlds, sweep, agreement, planted, budget or identity" >&2; exit 2;; \
	esac

fuzz: setup ## drawn and hostile input: KIND=gate, cases, git (as root), cost, documents, render, differential, facts
	@case "$(KIND)" in \
	  gate) $(PYTHON) tools/engine install; $(PYTHON) -m tests.gate.fuzz $(ARGS);; \
	  cases) $(PYTHON) tools/engine install; $(PYTHON) -m tests.gate.cases $(or $(ARGS),tests/gate/cases.jsonl);; \
	  git) $(PYTHON) -m tests.hostile.fuzz $(ARGS);; \
	  cost) $(PYTHON) -m tests.unit.broker.cost $(ARGS);; \
	  documents) $(PYTHON) -m tests.unit.core.proofs.document_cost $(ARGS);; \
	  render) $(PYTHON) -m tests.unit.core.proofs.hostile_files $(ARGS);; \
	  differential) $(PYTEST) -q -s --timeout 0 --hypothesis-profile thorough \
	    tests/unit/core/proofs/test_render_differential.py $(ARGS);; \
	  facts) $(PYTEST) -q --timeout 0 --hypothesis-profile facts tests/unit/broker/test_signed_acts_facts.py \
	    tests/unit/core/admission/test_networks_volumes_connects.py $(ARGS);; \
	  *) echo "make fuzz: KIND is gate, cases, git, cost, documents, render, differential or facts" >&2; exit 2;; \
	esac

ring: engine ## a long ring, as root: KIND=signed, losses, engines, compat, docker-py, compose-diff, compose-side, python, python-share, package
	@case "$(KIND)" in \
	  signed) $(PYTEST) --signed --numprocesses $(JOBS) --maxprocesses 4 $(SPREAD) tests/e2e $(ARGS);; \
	  losses) $(PYTEST) -s tests/e2e/test_losses.py --every-loss $(ARGS);; \
	  engines) $(PYTHON) -m tests.contract.engine_rings $(ARGS);; \
	  compat) $(PYTHON) -m tests.compat.matrix $(ARGS);; \
	  docker-py) $(PYTHON) -m tests.compat.docker_py_suite $(DIR) $(ARGS);; \
	  compose-diff) $(PYTHON) -m tools.compose_diff $(DIR) $(ARGS);; \
	  compose-side) $(PYTHON) -m tools.stacks $(DIR) $(ARGS);; \
	  package) $(PYTHON) -m tests.e2e.package_life $(ARGS);; \
	  python) export TRIMTAB_VENV=.venv-other TRIMTAB_PYTHON=$(OTHER); tools/setup; \
	    .venv-other/bin/python -m pytest -q -m "not needs_root" -n 2 $(SPREAD) tests/unit tests/golden $(ARGS);; \
	  python-share) export TRIMTAB_VENV=.venv-other TRIMTAB_PYTHON=$(OTHER); tools/setup; \
	    .venv-other/bin/python -m pytest -q tests/unit/test_imports.py tests/golden $(ARGS);; \
	  *) echo "make ring: no such KIND; see make help" >&2; exit 2;; \
	esac

bench: engine ## figures beside bare engine and compose into docs/benchmarks (ARGS="heal --rounds 3", ARGS=gate)
	@$(PYTHON) tools/bench $(ARGS)

mutants: setup ## what the unit tests overlook in controller/core (ARGS="--percent 5", ARGS="--show diff")
	@$(PYTHON) tools/mutants $(ARGS)

docs: setup ## write the pages of docs/ anew that are made from code
	@$(PYTHON) -m tools.docs
	@$(PYTHON) -m tests.unit.docs.screens
	@$(PYTHON) -m tests.e2e.drifts
	@$(PYTHON) -m tests.git.happenings

screens: engine ## photograph the pages for docs/images, as root: with Debian's fonts-inter as in the pictures there
	@$(PYTHON) -m tests.page.screens

deb: setup ## the package for Debian 13, amd64, below dist/ (any user)
	@tools/deb

release: setup ## wheel, source distribution, the package, the list of parts (SBOM) and checksums, below dist/ (any user)
	@tools/release

lock: setup ## write constraints.txt anew (ARGS="--upgrade" takes newer releases)
	@tools/lock $(ARGS)

clean: ## remove what set-up and the tools' caches made (no state, no engine)
	@rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
