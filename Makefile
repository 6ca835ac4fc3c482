# The door to everything. Needs Python (>=3.11,<3.14) and make; `make setup` builds .venv from the hashed lock file.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
DEMO := work/demo_data

# quiet and offline: no telemetry, no version checks, whatever shell calls us
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GX_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: help setup demo test test-flows test-data test-slow faults kill-demo check security audit memos bench splits \
  amazon serve stop lock clean
help:           ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | sort

setup: $(STAMP)  ## environment in .venv, from requirements.lock

# --no-deps: the lock is whole; pip before 23.3 would resolve again, take the newest sqlalchemy[asyncio] and stop
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] < (3, 14); sys.exit(None if ok else "Python >=3.11,<3.14 needed, found " + sys.version.split()[0] + "; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --no-index -e .
	@touch $@

demo: $(STAMP)  ## generate the demo portfolio, retrain on it, say where report and model are
	$(BIN)/crossrisk demo $(DEMO)
	CROSSRISK_DATA=$(DEMO) $(BIN)/crossrisk retrain configs/demo.toml

test: $(STAMP)  ## everything that fits in ten minutes on two cores
	$(BIN)/python -m pytest -m "not slow and not data and not flow and not heavy"

# real data: where CROSSRISK_DATA is set, else beside the checkout
test-data: $(STAMP)  ## the cases on the real data sets
	CROSSRISK_DATA="$${CROSSRISK_DATA:-$$( [ -d ../shared/data ] && cd ../shared/data && pwd || echo data )}" \
	  $(BIN)/python -m pytest -m data

test-flows: $(STAMP)  ## whole runs: the demo as a person runs it, approval, server with worker and schedules
	$(BIN)/python -m pytest -m "flow and not slow"

faults: $(STAMP)  ## the fault matrix: break it on purpose, print what holds, write docs/faults.md
	$(BIN)/python tests/faults/run_matrix.py --document docs/faults.md

kill-demo: $(STAMP)  ## kill -9 in the middle of a publication, ten times, and what a reader saw
	$(BIN)/python tests/faults/kill_demo.py

test-slow: $(STAMP)  ## minutes: the oracle over five seeds
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## ruff, mypy --strict on product code, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

security: $(STAMP)  ## attacks as tests, and ruff's S rules (bandit's) alone; docs/security.md says what they hold
	$(BIN)/ruff check --select S flows tasks models expectations crossrisk
	$(BIN)/python -m pytest -m "not flow" tests/unit -k test_security

# pip-audit comes from the package index, its advisories from PyPI; strict: what could not be looked up is no pass
audit:          ## known vulnerabilities of the locked dependencies (needs the network)
	$(PYTHON) -m venv work/.audit
	work/.audit/bin/pip install --quiet "pip-audit>=2.7"
	work/.audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.lock

# real data: where CROSSRISK_DATA is set, else beside the checkout
memos: $(STAMP)  ## two real decisions and their memos: one that borrows, one that refuses to
	export CROSSRISK_DATA="$${CROSSRISK_DATA:-$$( [ -d ../shared/data ] && cd ../shared/data && pwd || echo data )}"; \
	  $(BIN)/crossrisk retrain configs/lending_club.toml --json > /dev/null && \
	  $(BIN)/crossrisk retrain configs/taiwan_inactive.toml --json > /dev/null
	@ls -t work/lending_club/runs/*/memo.html | head -1; ls -t work/taiwan_inactive/runs/*/memo.html | head -1

bench: $(STAMP)  ## timings, printed as tables; docs/benchmarks.md records them
	$(BIN)/python benchmarks/bench_mmd.py
	$(BIN)/python benchmarks/bench_shifts.py
	$(BIN)/python benchmarks/bench_validate.py
	$(BIN)/python benchmarks/bench_features.py
	$(BIN)/python benchmarks/bench_scoring.py
	$(BIN)/python benchmarks/bench_batch.py
	$(BIN)/python benchmarks/bench_encodings.py
	$(BIN)/python benchmarks/bench_retrain.py
	$(BIN)/python benchmarks/bench_metrics.py --repeats 1
	$(BIN)/python benchmarks/bench_gate.py
	$(BIN)/python benchmarks/bench_coverage.py
	$(BIN)/python benchmarks/bench_drivers.py

# both go on where an earlier call was ended, and keep what is done under work/
splits: $(STAMP)  ## every contender on the seven real credit splits, ten draws of target labels (hours)
	CROSSRISK_DATA="$${CROSSRISK_DATA:-$$( [ -d ../shared/data ] && cd ../shared/data && pwd || echo data )}" \
	  $(BIN)/python benchmarks/bench_splits.py

amazon: $(STAMP)  ## deep adapters on the 12 pairs of Amazon reviews, beside the published table (20 minutes)
	CROSSRISK_DATA="$${CROSSRISK_DATA:-$$( [ -d ../shared/data ] && cd ../shared/data && pwd || echo data )}" \
	  $(BIN)/python benchmarks/bench_amazon.py

serve: $(STAMP)  ## Prefect server, worker and deployments on this machine, in the background
	deployments/serve.sh start

stop:           ## end what make serve started
	deployments/serve.sh stop

lock: $(STAMP)  ## write requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra dev --extra serving --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-header --no-emit-index-url --no-config -o requirements.lock

clean:          ## remove stages, reports and the demo's data; registry and environment stay
	rm -rf work
