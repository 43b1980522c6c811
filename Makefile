# `make demo` and `make test` need Python 3.11 or newer, make and git; they build .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt
# a file's tests run in one process, which makes what they share once
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

# compiled modules are kept, whatever the caller prefers: importing torch and timm without takes long
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs experiments-data experiments-icons experiments bench test test-all lint format constraints clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo      is AdvProp worth it? AdvProp, AugMix and vanilla at equal cost on real images (about three minutes, two cores)"
	@echo "make experiments-data  the colour images that experiments/ trains on (one minute, npm)"
	@echo "make experiments-icons 33,000 icons as images, a larger set for experiments (five minutes, npm)"
	@echo "make experiments       all experiments, which go on where they were stopped (QUICK=1: their smallest form)"
	@echo "make bench     what training costs, against bare loops and other libraries (half an hour; QUICK=1: two minutes)"
	@echo "make docs      the documentation as a site, in build/site"
	@echo "make test      the tests"
	@echo "make test-all  the heavier proofs too: every timm family, a real browser"
	@echo "make lint      ruff and mypy (strict)"
	@echo "make format    rewrite the code in the project's style"
	@echo "make constraints  bounds for make: the versions installed here, once the tests pass with them"

demo: $(VENV)/demo.stamp
	$(BIN)/advprop compare mnist5k --methods advprop,augmix --seeds 5 --jobs 2 --out runs/demo \
		--set model.options.width=12 --set training.num_epochs=11 --set training.evaluate_every_epochs=5 \
		--set method.attack.num_steps=1 --set method.attack.step_size=0.2 \
		--set evaluation.attack.num_steps=5

experiments-data: $(VENV)/experiments.stamp
	$(BIN)/python experiments/emoji.py data/emoji/32 --size 32
	$(BIN)/python experiments/emoji.py data/emoji/64 --size 64

experiments-icons: $(VENV)/experiments.stamp
	$(BIN)/python experiments/icons.py data/icons/32 --size 32
	$(BIN)/python experiments/icons.py data/icons/64 --size 64

EXPERIMENTS := model_size adversarial_first branches lengths training_data attacker finetuning \
	lean budgets without_batchnorm rivals crossover robust_start lean_strength lean_longer together
experiments: experiments-data experiments-icons
	for name in $(EXPERIMENTS); do \
		$(BIN)/python experiments/$$name.py --jobs 2 $(if $(QUICK),--quick) || exit 1; \
	done
	$(BIN)/python experiments/tables.py

bench: $(VENV)/bench.stamp
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick)

docs: $(VENV)/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: $(VENV)/test.stamp
	$(PYTEST) -m "not full and not browser"
	@command -v chromium >/dev/null || echo "no chromium here: the browser tests were not run ('make test-all' installs it)"

test-all: $(VENV)/test.stamp
	@command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)
	$(PYTEST)

lint: $(VENV)/lint.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/lint.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the newest releases that the tests have passed with; torch comes with packages of its own choice
constraints: $(VENV)/test.stamp $(VENV)/lint.stamp $(VENV)/bench.stamp
	{ echo "torch<2.16"; echo "torchvision<0.31"; $(BIN)/python -m pip freeze --exclude-editable \
		| grep -vE "^(torch|torchvision|torchattacks|triton|nvidia-.*|cuda-.*)==" | sed "s/==/<=/"; } > constraints.txt

clean:
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache

$(VENV)/base.stamp:
	$(PYTHON) -c "import sys; sys.version_info >= (3, 11) or sys.exit('advprop needs Python 3.11 or newer, this is ' + sys.version.split()[0])"
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/demo.stamp: pyproject.toml constraints.txt $(VENV)/base.stamp
	$(PIP_INSTALL) -e ".[demo]"
	@touch $@

$(VENV)/experiments.stamp: pyproject.toml constraints.txt $(VENV)/base.stamp
	$(PIP_INSTALL) -e ".[demo,experiments]"
	@touch $@

# torchattacks pins requests to a release of 2020, which its attacks do not use
$(VENV)/bench.stamp: pyproject.toml constraints.txt $(VENV)/base.stamp
	$(PIP_INSTALL) -e ".[bench]"
	$(PIP_INSTALL) --no-deps torchattacks==3.5.1 || echo "no torchattacks: its row will say so"
	@touch $@

$(VENV)/test.stamp: pyproject.toml constraints.txt $(VENV)/base.stamp
	$(PIP_INSTALL) -e ".[test]"
	@touch $@

$(VENV)/docs.stamp: pyproject.toml constraints.txt $(VENV)/base.stamp
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

$(VENV)/lint.stamp: pyproject.toml constraints.txt $(VENV)/base.stamp
	$(PIP_INSTALL) -e ".[lint]"
	@touch $@
