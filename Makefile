# Two commands: `make book` and `make test`. They need python3 (3.11 or newer) with venv, make and git; no GPU.
PYTHON ?= python3
V      := .venv
PY     := OMP_NUM_THREADS=1 $(V)/bin/python
READY  := $(V)/.ready
PORT   ?= 8000
JOBS   ?= 2
# HASHES=1: install exactly constraints-hashes.txt, each file checked against its hash.
HASHES ?=
# Peers that only the benchmarks import.
BENCH  := grad-cam torchcam
UV      = $(V)/bin/uv pip install -q --python $(V)/bin/python
PIP     = $(V)/bin/python -m pip install -q --disable-pip-version-check

.PHONY: book pages notebooks assignments mock ledger look test torture mutation lint bench links serve set-repo pins clean

book: $(READY)
	@$(PY) -m tools.lock $(MAKE) --no-print-directory pages

pages: notebooks
	@$(PY) -m tools.gates sources executed
	@$(PY) -m tools.stage
	@$(PY) -m tools.build
	@$(PY) -m tools.gates html
	@echo "The book is ready: $(CURDIR)/_build/html/index.html"

notebooks: $(READY)
	@$(PY) -m tools.run_notebooks -j $(JOBS)
	@test -f course.sealed || $(PY) -m tools.run_notebooks -j $(JOBS) --out _build/masters notebooks/assignments/*.ipynb

assignments: $(READY)                ## student versions, keys and archives into _build/assignments
	@$(PY) -m tools.classroom build

mock: $(READY)                       ## a made-up class of 77, and what each got and why: five minutes
	@$(PY) -m tools.classroom mock --jobs $(JOBS)

ledger: $(READY)                     ## the fidelity ledger; fails where an entry lacks its code or its test
	@$(PY) -m tools.ledger

look: $(READY)                       ## open every built page in a headless browser (skips where there is none)
	@$(PY) -m tools.screenshots

test: $(READY)
	@$(PY) -m pytest -n $(JOBS)

torture: $(READY)                    ## faults at every write, kills at every call, 1 to 4 processes: 20 minutes
	@XAI_COURSE_TORTURE=long $(PY) -m pytest -n $(JOBS) --timeout=1200 -rA \
	  tests/test_torture.py tests/test_torture_runs.py tests/test_metamorphic.py \
	  tests/test_gpu_rehearsal.py::test_runs_go_on_across_devices

mutation: $(READY)                   ## do the tests notice a changed operator or number? an hour or two; not in .ci/run
	@$(PY) -m tools.mutate

lint: $(READY)
	@$(V)/bin/ruff check -q .
	@$(V)/bin/ruff format -q --check xai_course tools tests benchmarks
	@$(V)/bin/mypy
	@$(V)/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(V)/bin/check-jsonschema -q --builtin-schema vendor.citation-file-format CITATION.cff
	@for schema in data/*.schema.json; do test -e "$$schema" || continue; name=$${schema%.schema.json}; \
	  $(V)/bin/check-jsonschema -q --schemafile "$$schema" $$(ls "$$name".toml "$$name"/*.toml 2>/dev/null) || exit 1; done
	@$(PY) -m tools.gates sources claims
	@echo "lint: clean"

bench: $(READY)
	@$(UV) $(BENCH) -c constraints.txt || $(PIP) $(BENCH) -c constraints.txt
	@for file in benchmarks/*.py; do echo "== $$file"; $(PY) $$file || exit 1; done

links: $(READY)                      ## follow the links to other sites (needs the network)
	@$(V)/bin/jupyter-book build _build/staged --path-output _build/links --builder linkcheck

serve: book
	@echo "http://localhost:$(PORT)"; cd _build/html && $(CURDIR)/$(V)/bin/python -m http.server $(PORT)

set-repo: $(READY)                   ## make set-repo REPO=owner/name
	@$(PY) -m tools.set_repo $(REPO)

pins:                                ## write the versions of this environment into constraints.txt
	@$(V)/bin/python -m pip list --format=freeze --disable-pip-version-check \
	  | grep -v -i -E '^(xai-course|pip|uv|setuptools|wheel)==' > constraints.txt
	@$(V)/bin/uv pip compile -q constraints.txt --no-deps --universal --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate -o constraints-hashes.txt

clean:
	rm -rf _build

$(READY): requirements.txt constraints.txt pyproject.toml
	@echo "Setting up $(V) (the first time this fetches about 3 GB) ..."
	@test -x $(V)/bin/python || $(PYTHON) -m venv $(V)
	@$(PIP) uv || echo "uv is not to be had here, going on with pip"
	@if [ -n "$(HASHES)" ]; then $(UV) --require-hashes --no-deps -r constraints-hashes.txt && $(UV) --no-deps -e .; else \
	  $(UV) -r requirements.txt -c constraints.txt -e . || $(PIP) -r requirements.txt -c constraints.txt -e .; fi
	@touch $@
