# make lab · make check · make test · make run · make refresh · make translations · make site
# make bench · make test-oldest · make test-wheel
# Without make: the same lines are in docs/installing.md and docs/teaching.md.

PYTHON ?= python3
BIN = .venv/bin
LESSONS = $(sort $(wildcard notebooks/[0-9]*.ipynb))
READY = .venv/.ready

.PHONY: lab check test test-oldest test-wheel run translations refresh site bench anew
.DELETE_ON_ERROR:

# The learner's own copies, in my/. `exec`: a shell in between would die of Ctrl-C before Jupyter has
# asked whether to shut down, and leave it behind.
# Jupyter refuses to run as root unless told; in a container one often is.
# LANGUAGE=zh-TW: the lessons in that language, in my/zh-TW/.
lab: $(READY)
	@$(if $(LANGUAGE),$(BIN)/python tools/translations.py make $(LANGUAGE))
	@first="$$($(BIN)/python -m vae_lesson.teaching.copies $(LANGUAGE))" && \
	exec $(BIN)/jupyter lab --notebook-dir="$$(dirname "$$first")" "$$first" \
	  $(if $(filter 0,$(shell id -u)),--allow-root)

# For every save: the linter and the unit tests, without notebooks and browser.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest tests -m "not lessons" -n 2

# Everything: also each lesson in full, headless variants, and the browser.
test: check
	$(BIN)/python -m pytest tests -m lessons -n 2 --dist loadfile
	$(BIN)/python -m pytest notebooks -n 2 --dist loadfile

# The unit tests and lessons 01 to 03 on the lowest versions that pyproject.toml allows, in an
# environment of their own (6 GB). They are a Colab image's, and so is ipykernel.
test-oldest:
	$(PYTHON) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -r requirements.txt ipykernel==6.17.1 \
	  $$($(PYTHON) tools/environment.py oldest)
	.venv-oldest/bin/python -m pytest tests -m "not lessons" -n 2
	.venv-oldest/bin/python -m pytest $(wordlist 1,3,$(LESSONS))

# Lesson 03 in an empty folder, with the package as a wheel brings it and what runs a notebook, in an
# environment of their own (6 GB).
test-wheel:
	rm -rf build
	$(PYTHON) -m venv --clear .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet . ipykernel nbclient
	folder=$$(mktemp -d) && cp notebooks/03_latent_space.ipynb $$folder && cd $$folder && \
	  env -u PYTHONPATH -u VAE_LESSON_RESULTS $(CURDIR)/.venv-wheel/bin/jupyter-execute --inplace --timeout=900 *.ipynb && \
	  ls $$folder/results/03_latent_space.json && rm -r $$folder $(CURDIR)/build

# Every lesson headless, in order, into results/run/.
run: $(READY)
	$(BIN)/python tools/run.py $(LESSONS)

# Bring the catalogues in locale/ up to date with the lessons, and say how much is translated.
translations: $(READY)
	$(BIN)/python tools/translations.py update

# Run the committed lessons in place and clean them.
refresh: $(READY)
	$(BIN)/python tools/refresh.py $(LESSONS)

# Run the lessons, in every language of locale/, and make them static pages, in results/site/.
# PAGES=only: of the last such run.
site: $(READY)
	PYTHONPATH=tools:tests $(BIN)/python site/pages.py $(PAGES)

# Timings beside what they are compared with; run nothing else meanwhile. PARTS=training: only that.
bench: $(READY)
	PYTHONPATH=site:tests $(BIN)/python tools/benchmark.py $(PARTS)

# The environment belongs to this folder and to a Python that is new enough, else it is made anew; and
# what is installed and sufficient is enough, so that no network is needed for it.
$(READY): requirements.txt pyproject.toml $(if $(filter $(CURDIR),$(shell cat $(READY) 2>/dev/null)),,anew)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, as by make lab PYTHON=python3.13; this is " + sys.version) if sys.version_info < (3, 11) else None'
	@if ! { $(BIN)/python -m pip --version >/dev/null 2>&1 && \
	    $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && \
	    grep -qs "[=\"' ]$(CURDIR)/.venv" .venv/bin/activate; }; then \
	  [ ! -e .venv ] || echo ".venv is incomplete, of another folder or of an older Python: it is made anew"; \
	  $(PYTHON) -m venv --clear .venv || \
	    { echo "python -m venv failed (on Debian or Ubuntu: apt install python3-venv)"; exit 1; }; \
	fi
	@$(BIN)/python tools/environment.py || { \
	  echo "Installing into .venv: up to 6 GB, a few minutes (docs/installing.md: 1.7 GB without what a GPU needs)."; \
	  $(BIN)/python -m pip install -r requirements.txt; }
	@echo "$(CURDIR)" > $(READY)
