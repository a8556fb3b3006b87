# make reproduce               every notebook that is not up to date, figures/, all checks (PROFILE=paper for the full size)
# make check                   lint, doctests and the fast tests: those not marked `slow`; three minutes on two cores
# make test                    everything: lint, all tests, doctests, notebooks with profile test; 17 minutes
# make lab                     JupyterLab on the notebooks
# make explore                 the explorer in the browser: sliders, a phase in a sentence
# make update                  requirements.lock with the newest versions that pyproject.toml admits
# make networks                other libraries' networks into docs/networks.md (torchvision, timm, transformers, peft)
# make prints                  every figure at every venue's width: nothing small, cut off or overlapping; ten minutes
# make soak                    every fault at random moments, and what was lost, doubled or wrong; 20 minutes on two cores
# make bench                   speed, memory and disk, side by side (benchmarks/RESULTS.md); about five minutes
# make badge REPO=ada/nin       launch buttons of your copy on GitHub into README.md and the site
# make site                    notebooks, figures, checks, API as static pages, links checked (LINKS=all: other sites' too)
#
# On Linux the default torch is the CUDA build of several GB. For the small CPU build:
#   make reproduce TORCH_INDEX=https://download.pytorch.org/whl/cpu
# Any Python >= 3.11 will do: make reproduce PYTHON=python3.12

PROFILE ?= quick
PYTHON ?= python3
LINKS ?= local
TORCH_INDEX ?=
CELL_TIMEOUT ?= 300
# Tests are shared by WORKERS processes: one for each core that make may use, at most 4 and what the memory holds, since
# one with its kernel may take 2 GB; 0 runs them in pytest's own process. Each of them computes on one thread.
WORKERS ?= $(shell $(PYTHON) -c 'from nin.support.cores import processes; n = min(processes(2e9), 4); \
    print(n if n > 1 else 0)')
# Kernels of JupyterLab and the explorer get as many threads as there are cores, which sleep while they wait.
FITTED = env $$($(BIN)/python -m nin.support.cores)
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n $(WORKERS)

BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
SPHINX = $(BIN)/python -m sphinx -q -W --keep-going -c site -d site/_build/doctrees

.PHONY: reproduce check test prints soak bench badge lab lint clean explore update site networks

reproduce: .venv/installed
	$(BIN)/python -m nin run --profile $(PROFILE)

check: lint .venv/tests
	$(PYTEST) --dist worksteal -m "not slow" --doctest-modules nin studies tests

test: lint .venv/tests
	$(PYTEST) --dist worksteal --doctest-modules nin studies tests
	@rm -rf runs/test
	$(BIN)/python -m nin run --profile test --prepare-only --out runs/test
	NIN_FIGURES=$(CURDIR)/runs/test/figures NIN_STORE=$(CURDIR)/runs/test/store $(PYTEST) \
	    --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=$(CELL_TIMEOUT) runs/test/*.ipynb

prints: .venv/tests
	NIN_PRINTS=all $(PYTEST) --dist worksteal tests/companion/test_printed_exports.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check nin studies tests benchmarks site
	$(BIN)/lint-imports

soak: .venv/tests
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak

bench: .venv/tests
	$(BIN)/python -m benchmarks

explore: .venv/installed
	JUPYTER_CONFIG_PATH=binder/config $(FITTED) $(BIN)/python -m voila notebooks/explore.ipynb

lab: .venv/installed
	$(FITTED) $(BIN)/python -m jupyter lab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

# The newest versions that pyproject.toml admits; the next target then sets up .venv anew.
update: .venv/installed
	$(BIN)/python binder/lock.py $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

networks: .venv/networks
	$(BIN)/python site/networks_page.py --real

badge:
	@$(PYTHON) binder/badge.py $(REPO)

site: .venv/site
	@rm -rf site/_build
	$(BIN)/python site/pages.py site/_build/source
	$(SPHINX) -b html site/_build/source site/_build/html
	$(BIN)/python site/links.py site/_build/html
	$(if $(filter all,$(LINKS)),$(SPHINX) -b linkcheck site/_build/source site/_build/links)
	@echo "The site is at site/_build/html/index.html"

clean:
	rm -rf .venv runs figures/quick site/_build .pytest_cache .ruff_cache

# The stamp is written last: a set-up that was interrupted, or whose lock has changed, starts afresh.
.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "nin needs Python >= 3.11, and '$(PYTHON)' is not: name another one, as in make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv with the versions of requirements.lock: a few minutes the first time."
	@$(PYTHON) -m venv --clear .venv
	@$(PIP) install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/tests: .venv/installed tests/requirements.lock
	@$(PIP) install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c requirements.lock -r tests/requirements.lock
	@touch $@

.venv/site: .venv/installed site/requirements.lock
	@$(PIP) install -c requirements.lock -r site/requirements.lock
	@touch $@

.venv/networks: .venv/tests tests/networks/requirements.lock
	@$(PIP) install $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c requirements.lock -r tests/networks/requirements.lock
	@touch $@
