# make demo: from a fresh clone to the report. make test: the suite. Both share .venv, built once.
PYTHON ?= python3
PIP_FLAGS ?= --quiet --disable-pip-version-check
BIN := .venv/bin

.PHONY: demo venv test test-all faults mutants fuzz coverage readers licences resolve commands docs check bench format clean

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

# What 3D Slicer's reader makes of our DICOM objects. Needs dcmqi, which has no wheel for some machines.
readers: venv
	@command -v $(BIN)/paramap2itkimage >/dev/null || $(BIN)/pip install $(PIP_FLAGS) 'dcmqi>=1.5'
	@$(PYTEST) tests/io/test_dicom_readers.py

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
