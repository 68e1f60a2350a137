# The commands for developers and CI. `make demo` and `make test` need no preparation.
#   make demo [DATA=folder] [MINUTES=10] [KEEP=0]   the pipeline end to end under a real Airflow
#   make ui                            the Airflow of the last demo again, with what it made
#   make test                          all checks that must pass
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
.PHONY: help setup demo pictures ui test test-baseline-cpu postgis prometheus test-faults mutants fuzz audit lock sbom qgis stack stack-test up down \
	lint types contracts docs docs-check docs-site unit bench peers second-training restore-rehearsal clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.cloudseg-setup
CONSTRAINTS := constraints-3.11.txt
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := $(BIN)/python -m pip --disable-pip-version-check
DATA ?=
KEEP ?= 1
MINUTES ?=

help:  ## List the targets
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP)  ## Create .venv once: pinned, editable, every extra but teacher

# The stamp contains the checksum of its inputs: a touched but unchanged file does not install anything again.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@if [[ -f $(STAMP) ]] && cat pyproject.toml $(CONSTRAINTS) | sha256sum --check --status $(STAMP); then
		touch $(STAMP); exit 0
	fi
	python="$(PYTHON)"
	refuse() { echo "setup: $$*" >&2; exit 1; }
	[[ -n $$python ]] || refuse "Python 3.11 or newer is needed: apt install python3 python3-venv"
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| refuse "$$python is older than Python 3.11; use another one: make setup PYTHON=..."
	"$$python" -c 'import ensurepip, venv' 2>/dev/null \
		|| refuse "$$python cannot create a virtual environment: apt install python3-venv"
	pin=(-c $(CONSTRAINTS))
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { pin=(); echo "setup: not Python 3.11, so versions are not pinned"; }
	echo "setup 1/3: $(VENV) with $$python"
	[[ -x $(BIN)/python ]] || "$$python" -m venv $(VENV)
	echo "setup 2/3: torch (the largest download, a minute or two)"
	$(PIP) install --quiet torch==2.13.0
	echo "setup 3/3: cloudseg with every extra (two minutes or so)"
	$(PIP) install --quiet "$${pin[@]}" -e '.[ml,postgres,s3,gis,stac,serve,airflow,production,dev]'
	cat pyproject.toml $(CONSTRAINTS) | sha256sum > $(STAMP)
	echo "setup: done"

demo: setup  ## The pipeline end to end under a real Airflow: make demo [DATA=folder] [MINUTES=10] [KEEP=0]
	@$(BIN)/python -m tools.demo $(if $(DATA),--data "$(DATA)") $(if $(MINUTES),--minutes "$(MINUTES)") \
		$(if $(filter 0 no false,$(KEEP)),--no-keep,--keep)

pictures: setup  ## The pictures of docs/assets/ from the last demo: its Airflow again, a second day, Chromium (minutes)
	@$(BIN)/python -m tools.pictures --home var/demo
	$(BIN)/python -m tools.page_pictures --home var/demo

ui: setup  ## The Airflow of the last demo again, with what it made, until Ctrl-C
	@$(BIN)/python -m tools.demo --again

# mypy needs one core for two minutes, so it runs beside the first tests; its verdict counts at the end.
test: setup lint contracts docs-check  ## All checks that must pass, half an hour on 2 cores
	@$(MAKE) --no-print-directory types & types=$$!
	$(MAKE) --no-print-directory unit
	wait "$$types" || { echo "mypy found errors: they stand above, after the first tests" >&2; exit 1; }

stack: setup  ## The services of docker/compose.yaml as plain processes on loopback, until Ctrl-C
	@$(BIN)/python -m tools.stack

BUT ?=
stack-test: setup  ## Pipeline and kill tests on PostgreSQL, SeaweedFS, Redis and Celery (a quarter of an hour); BUT=names to leave out
	@$(BIN)/python -m pytest -m stack $(if $(BUT),-k "not ($(BUT))") tests/tools/stack

PROFILE ?= gpu
up:  ## The same services as containers: make up [PROFILE=cpu]; needs Docker and docker/.env
	@[[ -f docker/.env ]] || { echo "up: copy docker/.env.example to docker/.env and fill in the secrets" >&2; exit 1; }
	docker compose --file docker/compose.yaml --profile $(PROFILE) up --build --detach --wait

down:  ## Stop the containers and keep their data
	@docker compose --file docker/compose.yaml --profile '*' down

# The pictures are in build/qgis. The packages of QGIS stay unpacked in .qgis.
qgis: setup  ## Open the QGIS project of a mask in a real QGIS and check its picture (fetches 370 MB once)
	@.ci/qgis .qgis
	mkdir -p build/qgis
	QGIS_PYTHON="$$PWD/.qgis/python3" QGIS_PICTURES="$$PWD/build/qgis" $(BIN)/python -m pytest -m qgis tests/serve/test_qgis.py

ON ?=
KILLS ?=
# Outage tests mostly wait, so four run at a time, each with its own server.
test-faults: setup  ## Kill every step at every commit point, and the servers; ON=SQLite or ON=PostgreSQL for half of it, KILLS=4 for a sample
	@FAULT_KILLS=$(KILLS) $(BIN)/python -m pytest -m faults $(if $(ON),-k "$(ON)") tests/faults
	@$(if $(ON),,$(BIN)/python -m pytest -m faults --numprocesses 4 --dist load tests/storage)

ONLY ?=
mutants: setup  ## Mutation tests: break the code in a copy and check that a test fails (minutes); ONLY=name for one
	@$(BIN)/python tools/mutants.py $(addprefix --only ,$(ONLY))

fuzz: setup  ## Fuzz tests: make fuzz [MINUTES=5]; a failing input is added to tests/fuzz/corpus
	@FUZZ_SECONDS=$$(awk 'BEGIN { print 60 * $(or $(MINUTES),5) }') $(BIN)/python -m pytest --timeout=0 tests/fuzz

audit: setup  ## Known vulnerabilities of the pinned packages (needs network)
	@.ci/audit $(CONSTRAINTS) "$(PYTHON)"

lock: setup  ## Write requirements-3.11.lock: the checksums of all pinned wheels (needs the package registry)
	@$(BIN)/python -m tools.lock

sbom: setup  ## Write build/sbom.cdx.json and build/licenses.txt: what is installed, in which version, under which license
	@$(BIN)/python -m tools.sbom

lint: setup
	@echo "ruff" && $(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	@echo "mypy" && $(BIN)/mypy

contracts: setup
	@echo "import contracts" && $(BIN)/lint-imports

docs: setup  ## Regenerate the generated pages of docs/
	@$(BIN)/python docs/generate.py

docs-check: setup
	@$(BIN)/python docs/generate.py --check

docs-site: setup  ## Build the site of docs/ into site/, without network; a warning is an error (a test does too)
	@echo "mkdocs" && NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict 2>&1 | sed '/^INFO/d'

# One process more than there are CPUs, a whole test file each: half of the time is waiting for servers, child processes
# and timeouts. In the order of tests/conftest.py, which begins with the longest files.
unit: setup postgis prometheus
	@$(BIN)/python -m pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder

# PostGIS for the tests if it is not installed: unpacked from packages, without root (54 MB, a quarter of a minute).
postgis:
	@.ci/postgis .postgis

# promtool for the tests if it is not installed, in the same way (19 MB).
prometheus:
	@.ci/prometheus .prometheus

# Numerical tests without CPU extensions, on one core. The variables belong to PyTorch, oneDNN, MKL and OpenBLAS.
test-baseline-cpu: setup  ## Numerical tests as on a CPU without AVX, VNNI and AMX (two minutes)
	@ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 OPENBLAS_CORETYPE=Nehalem \
		$(BIN)/python -m pytest --baseline-cpu tests/model tests/train \
		tests/predict/test_draw.py tests/predict/test_golden_mask.py tests/predict/test_overlap.py tests/predict/test_predict_scene.py

bench: setup peers  ## Speed and memory, compared with naive implementations and with peers
	@$(BIN)/python -m benchmarks.run

peers: setup  ## Environments of ukis-csmask and s2cloudless in build/peers, for make bench (needs the package registry)
	@$(BIN)/python -m benchmarks.peer_environments

second-training: setup  ## Ingest 38-Cloud and train baseline_4200: make second-training DATA=folder (hours; goes on when repeated)
	@[[ -d "$(DATA)" ]] || { echo "second-training: DATA=$(DATA) is no folder; see docs/how-to/second_training.md" >&2; exit 1; }
	$(BIN)/cloudseg ingest "$(DATA)" --layout 38cloud
	$(BIN)/cloudseg retrain --recipe baseline_4200

restore-rehearsal: setup  ## Back up, restore and compare a home in the size of the demo; prints seconds and bytes
	@$(BIN)/python -m benchmarks.restore

clean:  ## Remove what make setup and the checks created (never var/)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .postgis .prometheus .qgis
