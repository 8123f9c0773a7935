# SPDX-License-Identifier: Apache-2.0
# What people type. Everything works from any folder with `make -C <this folder> <target>`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Targets may run side by side, as `make test` has them: caches are each target's own, boxes have names of their own, and
# what makes the lab waits for whoever is at it (lab_lock).

ROOT := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
BIN := $(ROOT)/.venv/bin
export PATH := $(BIN):$(PATH)

INVENTORY ?= inventory/spark.yml
# What every change is tested by, and what else there is: make test-thorough has that.
SCENARIO ?= default switch gateway
THOROUGH := models images gpu host hardening
# More words for ansible-playbook, molecule or pytest, for example ARGS="--check --diff".
ARGS ?=

.PHONY: help demo demo-down site test test-contract test-vllm bench-resolve bench-download bench-gateway bench-latency bench-switch soak lint sanity unit molecule e2e e2e-thorough test-thorough lab build catalog lock clean FORCE


help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(ROOT)/Makefile

# The script looks by itself whether there is anything to do.
.venv/.ready: FORCE
	@PYTHON="$(PYTHON)" $(ROOT)/scripts/venv.sh

demo: .venv/.ready ## a box on this machine, provisioned and answering; the first run takes some minutes
	@cd $(ROOT) && $(BIN)/python -m lab.demo up

demo-down: ## remove the demo: box, registry, network, and the engine if it was started for it
	@$(ROOT)/lab/demo-down.sh

site: .venv/.ready ## provision real boxes: INVENTORY=inventory/spark.yml, ARGS="--check --diff"
	@cd $(ROOT) && $(BIN)/ansible-playbook -i $(INVENTORY) site.yml $(ARGS)

# Each of the first three says nothing until it has all to say (-O), so that their lines do not mix.
test: .venv/.ready ## lint, sanity and unit two at a time, then molecule, then e2e; the last line is pytest's
	@for stage in "-j2 -O lint sanity unit" molecule e2e; do \
	  echo "== $${stage#-j2 -O }"; \
	  $(MAKE) -C $(ROOT) $$stage || { echo "make test: it failed in $${stage#-j2 -O }. Once mended, 'make $${stage##* }' and the like run alone." >&2; exit 1; }; \
	done

test-thorough: .venv/.ready ## what make test leaves out: five more scenarios, faults, kills and whole lives of a box; an hour and a half
	@$(MAKE) -C $(ROOT) molecule SCENARIO="$(THOROUGH)"
	@$(MAKE) -C $(ROOT) e2e-thorough

lint: .venv/.ready ## ansible-lint, ruff, mypy, yamllint, antsibull-docs, shellcheck
	@cd $(ROOT) && scripts/lint.sh

sanity: .venv/.ready ## ansible-test sanity
	@cd $(ROOT) && scripts/sanity.sh

unit: .venv/.ready ## unit tests, by two processes
	@cd $(ROOT) && $(BIN)/python -m pytest tests/unit -n 2 $(ARGS)

molecule: .venv/.ready ## scenarios, each on a box of its own, two at a time: SCENARIO="default switch", models, gateway, gpu, images, host, hardening, vllm or all
	@$(ROOT)/lab/up.sh
	@$(MAKE) -C $(ROOT) -j2 $(if $(word 2,$(SCENARIO)),LOG_ONLY=yes) $(SCENARIO:%=molecule-%)

# One scenario. What it says goes into its log only where two at a time would mix their lines.
molecule-%: .venv/.ready
	@LOG_ONLY=$(LOG_ONLY) $(ROOT)/lab/molecule.sh $* $(ARGS)

# Files of tests stay whole and come in the order of tests/e2e/conftest.py.
e2e: .venv/.ready ## tests that take a whole box or an installed artifact, on two boxes; ARGS="-k crash", ARGS="-n 0" for one
	@$(ROOT)/lab/tools.sh ssh=openssh-client
	@cd $(ROOT) && $(BIN)/python -m pytest tests/e2e -n 2 --dist loadfile --no-loadscope-reorder -m "not thorough" $(ARGS)

e2e-thorough: .venv/.ready ## those that take longest: what else can fail, uninstall, backup, updates
	@$(ROOT)/lab/tools.sh ssh=openssh-client
	@cd $(ROOT) && $(BIN)/python -m pytest tests/e2e -n 2 --dist loadfile --no-loadscope-reorder -m thorough $(ARGS)

test-contract: .venv/.ready ## every model's flags, asked of the engines' own parsers (6 GB below .cache)
	@cd $(ROOT) && scripts/engines-venv.sh
	@$(ROOT)/lab/up.sh
	@cd $(ROOT) && HEARTH_CONTRACT=1 $(BIN)/python -m pytest tests/contract $(ARGS)

test-vllm: .venv/.ready ## a real vLLM on a box, from catalog to answer: 4 minutes and 8 GB, then 2
	@$(ROOT)/lab/molecule.sh vllm $(ARGS)

bench-resolve: .venv/.ready ## what resolving 45 models for 10 hosts adds to a run
	@cd $(ROOT) && PYTHONPATH=collections $(BIN)/python bench/resolve.py

bench-switch: .venv/.ready ## a switch by Hearth beside one by hand, on a box; 3 minutes
	@$(ROOT)/lab/up.sh
	@cd $(ROOT) && PYTHONPATH=tests/e2e $(BIN)/python bench/switch.py

bench-download: .venv/.ready ## downloads beside `hf download` and curl; ARGS="--scale 0.25" for less disk than 8 GB
	@$(BIN)/python $(ROOT)/bench/download.py $(ARGS)

bench-gateway: .venv/.ready ## the gateway beside nginx and LiteLLM, each on one core; 3 minutes
	@$(ROOT)/lab/tools.sh nginx=nginx-light
	@cd $(ROOT) && $(BIN)/python bench/gateway.py $(ARGS)

bench-latency: .venv/.ready ## how soon the gateway passes on that somebody is gone or ready, on a box; 4 minutes
	@$(ROOT)/lab/up.sh
	@cd $(ROOT) && PYTHONPATH=tests/e2e $(BIN)/python bench/gateway_latency.py $(ARGS)

soak: .venv/.ready ## 16 streaming clients, 3 models that do not fit together, 1,000 switches; ARGS="--switches 100"
	@$(ROOT)/lab/up.sh
	@cd $(ROOT) && PYTHONPATH=tests/e2e $(BIN)/python bench/soak.py $(ARGS)

lab: .venv/.ready ## what boxes are made from: engine, images, registry, models
	@$(ROOT)/lab/up.sh

build: .venv/.ready ## the collection as an artifact in dist/
	@cd $(ROOT) && mkdir -p dist && $(BIN)/ansible-galaxy collection build --force --output-path dist

catalog: .venv/.ready ## write the catalog's schemas and docs/models.md
	@cd $(ROOT) && $(BIN)/python scripts/catalog.py write

lock: .venv/.ready ## resolve the requirements anew
	@cd $(ROOT) && scripts/lock.sh

clean: ## remove .venv, .cache and everything of the lab, images too
	@$(ROOT)/lab/clean.sh
