# `make run` and `make test` do everything that a fresh Debian 13 machine needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON := .venv/bin/python
# Extra arguments for `make run` (trimtab up) and `make test` (pytest).
ARGS ?=
# Processes that run test files side by side: as root three more than processors (tests/conftest.py) and
# at most five, each with an engine of its own; else there is one engine for all.
JOBS ?= $(if $(filter 0,$(shell id -u)),auto,0)
SEEDS ?= 200
STORIES ?= 100000
CASES ?= tests/gate/cases.jsonl
INPUTS ?= 1500
MINUTES ?=
PERCENT ?= 5
SUITE ?=

# Without bytecode each process compiles again what the tests import.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: compose-diff compose-side help setup run down test signed losses check lint format sim sim-sweep sim-planted sim-budget mutants bench bench-gate bench-journal engines gate-cases fuzz fuzz-cost fuzz-documents fuzz-git fuzz-render differential compat docker-py docs lock clean sim-identity facts

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' \
	  | while IFS=$$'\t' read -r target text; do printf '  make %-12s %s\n' "$$target" "$$text"; done

setup: ## the virtual environment with trimtab in it (and, as root, the system user)
	@tools/setup

# exec, and one shell for both lines: Ctrl-C must reach trimtab itself, which stops in order.
run: setup ## converge desired-state/ on this machine and keep it so, until Ctrl-C
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

test: setup ## every test; as root on an engine of its own
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m pytest --numprocesses $(JOBS) --maxprocesses 5 --dist loadfile --no-loadscope-reorder $(ARGS)

check: setup ## lint, types, import contracts, unit and golden tests: the inner loop
	@$(PYTHON) -m pytest -q --numprocesses $$(($$(nproc) + 1)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests/unit tests/golden $(ARGS)

lint: setup ## ruff, mypy, the import contracts, and code that stands twice
	@$(PYTHON) -m pytest -q tests/unit/test_lint.py

format: setup ## lay out the code as lint wants it
	@.venv/bin/ruff check --quiet --fix-only . && .venv/bin/ruff format .

signed: setup ## the e2e suites under signed admission: each honest act is admitted (as root)
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m pytest --signed --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder tests/e2e $(ARGS)

losses: setup ## every file of a state folder lost, alone and in pairs, on an engine (as root)
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m pytest -s tests/e2e/test_losses.py --every-loss $(ARGS)

sim: setup ## the simulation: SEEDS=n worlds (ARGS="--seed N" replays one)
	@$(PYTHON) -m pytest tests/sim --seeds $(SEEDS) $(ARGS)

sim-sweep: setup ## the broker and the controller killed at every moment of every story
	@$(PYTHON) -m pytest tests/sim -k crash_sweep --moments 0 $(ARGS)

sim-planted: setup ## search all worlds for every planted bug, and note which found it
	@$(PYTHON) -m pytest tests/sim -k planted --anew $(ARGS)

sim-budget: setup ## a hostile controller against the disruption budget: STORIES=n of its model
	@$(PYTHON) -m pytest -q tests/sim/test_budget_model.py -k share --stories $(STORIES) $(ARGS)

sim-identity: setup ## owners whose objects take each other's names: STORIES=n of its model, and a line in docs
	@$(PYTHON) -m pytest -q tests/sim/test_identity_model.py -k reaches --stories $(STORIES) $(ARGS)

mutants: setup ## what the unit tests overlook in controller/core: PERCENT=n of its mutants (ARGS="--show diff")
	@$(PYTHON) tools/mutants --percent $(PERCENT) $(ARGS)

bench: setup ## figures beside bare engine and compose into docs/benchmarks (ARGS="heal --rounds 3")
	@$(PYTHON) tools/engine install
	@$(PYTHON) tools/bench $(ARGS)

bench-gate: setup ## what the gate costs beside the engine's own socket, and under a flood (as root)
	@$(PYTHON) tools/engine install
	@$(PYTHON) tools/bench gate

bench-journal: setup ## appends, a million records verified and asked
	@$(PYTHON) tools/engine install
	@$(PYTHON) tools/bench journal million

compose-diff: setup ## compare the reading of Compose projects below DIR with docker-compose
	@$(PYTHON) -m tools.compose_diff "$(DIR)" $(ARGS)

compose-side: setup ## run the Compose stacks below DIR with docker compose and with trimtab, and compare (as root)
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m tools.stacks $(if $(DIR),"$(DIR)") $(ARGS)

engines: setup ## contract, gate and main job on each engine, and a line each in docs/engines.md (as root)
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m tests.contract.engine_rings $(ARGS)

gate-cases: setup ## judge a file of gate cases, as root: CASES=file.jsonl
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m tests.gate.cases $(CASES)

fuzz: setup ## the gate's fuzz, as root: INPUTS=n admitted ones or MINUTES=n (ARGS="--seed S --input K" replays)
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m tests.gate.fuzz --inputs $(INPUTS) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

fuzz-cost: setup ## the cost of a request by its size, for every route and field: SIZE=n (ARGS=--largest)
	@$(PYTHON) -m tests.unit.broker.cost --size $(or $(SIZE),2048) $(ARGS)

fuzz-documents: setup ## the cost of documents by their size, for every place: DRAWN=n (ARGS=--timed)
	@$(PYTHON) -m tests.unit.core.proofs.document_cost --drawn $(or $(DRAWN),500) $(ARGS)

fuzz-render: setup ## hostile files through the renderer of signed admission: INPUTS=n (ARGS="--input K" replays)
	@$(PYTHON) -m tests.unit.core.proofs.hostile_files --inputs $(INPUTS) $(ARGS)

differential: setup ## 10,000 drawn sources: what is rendered for signed admission is what is planned
	@$(PYTHON) -m pytest -q -s --timeout 0 --hypothesis-profile thorough \
	  tests/unit/core/proofs/test_render_differential.py $(ARGS)

facts: setup ## 100,000 drawn requests for each property of facts that admission, proofs, quotas and records use
	@$(PYTHON) -m pytest -q --timeout 0 --hypothesis-profile facts \
	  tests/unit/broker/signed/test_signed_acts_facts.py \
	  tests/unit/core/admission/test_networks_volumes_connects.py $(ARGS)

fuzz-git: setup ## hostile repositories through fetch and export: INPUTS=n (ARGS="--seed S --input K" replays)
	@$(PYTHON) -m tests.hostile.fuzz --inputs $(INPUTS) $(ARGS)

compat: setup ## ordinary clients through the gate, as root: what works and what is refused
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m tests.compat.matrix $(ARGS)

docs: setup ## write the pages of docs/ anew that are made from code
	@$(PYTHON) -m tools.docs
	@$(PYTHON) -m tests.unit.docs.screens
	@$(PYTHON) -m tests.e2e.drifts
	@$(PYTHON) -m tests.git.happenings

docker-py: setup ## docker-py's own suite on an engine and through a broker, as root: SUITE=checkout
	@$(PYTHON) tools/engine install
	@$(PYTHON) -m tests.compat.docker_py_suite $(SUITE) $(ARGS)

lock: setup ## write constraints.txt anew (ARGS="--upgrade" takes newer releases)
	@tools/lock $(ARGS)

clean: ## remove what set-up and the tools' caches made (no state, no engine)
	@rm -rf .venv build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
