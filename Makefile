# AlignMamba: `make demo` trains on the built-in corpus, `make test` runs the tests.
# Needs Python 3.11 or newer and make; everything else goes into $(VENV).

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2

# PyTorch first and by itself: the default Linux wheel brings several GB of CUDA libraries. On a machine without a GPU,
# give PyTorch's CPU wheel index: make demo TORCH_INDEX=<its address>.
TORCH       ?= 2.13.0
TORCH_INDEX ?=

# The theme advertises its successor at every build.
export NO_MKDOCS_2_WARNING := 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

# Workers share the cores among themselves, so each computes on one thread.
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -ra

.DELETE_ON_ERROR:
.PHONY: help demo demo-video test test-slow check lint types docs serve-docs screenshots time-plot format clean

help:
	@echo "make demo    train on the synthetic corpus into runs/demo"
	@echo "make demo-video  make clips, read them, train and predict a new one, in runs/demo-video"
	@echo "make test    run the tests"
	@echo "make test-slow   run the tests that take minutes: every method at its default sizes"
	@echo "make check   linters, types, documentation (strict) and tests: what CI runs"
	@echo "make docs    build the documentation into site/"
	@echo "make screenshots  take the pictures of the report anew; needs Chromium"
	@echo "make time-plot    measure the README's plot of time over length anew"
	@echo "make format  rewrite the sources as the linters want them"
	@echo "make clean   remove what the above made, the environment included"

# The demo starts afresh each time.
demo: $(VENV)/.installed-run
	@rm -rf runs/demo
	$(BIN)/alignmamba train --data synthetic --set fit.epochs=6 --out runs/demo

# From video files to a prediction, without any weights: clips are made from nothing. ALIGNMAMBA_MEDIA_WEIGHTS may name
# a folder with minilm/, face_landmarker.task and face.mp4: then they show that face, and these models read them.
WEIGHTS := $(ALIGNMAMBA_MEDIA_WEIGHTS)
CLIPS   := $(BIN)/python examples/demo_video.py $(if $(WEIGHTS),--weights $(WEIGHTS))
READERS := $(if $(WEIGHTS),--text hf:$(WEIGHTS)/minilm --video face:$(WEIGHTS)/face_landmarker.task,--words subtitles)

demo-video: $(VENV)/.installed-$(if $(WEIGHTS),models,media)
	@rm -rf runs/demo-video
	$(CLIPS) runs/demo-video/clips
	$(BIN)/alignmamba extract runs/demo-video/clips $(READERS) --workers $(WORKERS) --out runs/demo-video/corpus
	$(BIN)/alignmamba train --data runs/demo-video/corpus --config examples/demo_video.yaml --out runs/demo-video/run
	$(CLIPS) runs/demo-video/new --seed 1 --one
	$(BIN)/alignmamba predict runs/demo-video/run runs/demo-video/new --out runs/demo-video/predictions.csv
	@cat runs/demo-video/predictions.csv

test: $(VENV)/.installed-dev
	$(TEST)

test-slow: $(VENV)/.installed-dev
	$(TEST) -m slow --durations=0 --durations-min=10

# Tests last, so that their closing line is the last thing said.
check: lint types docs
	$(TEST)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --quiet

serve-docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs serve

# Needs Chromium and chromedriver beside what pip installs.
screenshots: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python docs/screenshots.py

# Time over length, one thread; takes some minutes.
time-plot: $(VENV)/.installed-dev
	@rm -rf runs/time-plot
	OMP_NUM_THREADS=1 $(BIN)/alignmamba bench model --lengths 200 400 800 1600 3200 --measure time --repeats 3 \
		--against default transformer-fused mult-fused mambapy huggingface --out runs/time-plot
	cp runs/time-plot/time.png docs/images/time.png

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs/demo runs/demo-video runs/time-plot site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, grown in two steps: the demo needs less than the tests.
$(VENV)/.installed-torch:
	@command -v $(PYTHON) >/dev/null || { echo "AlignMamba needs Python 3.11 or newer, and there is no $(PYTHON). Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "AlignMamba needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the environment $(VENV) with PyTorch $(TORCH); this happens once and takes minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH)
	@touch $@

$(VENV)/.installed-run: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing AlignMamba into $(VENV)."
	@$(PIP) -e '.[tensorboard]'
	@touch $@

$(VENV)/.installed-media: $(VENV)/.installed-run
	@$(PIP) -e '.[media]'
	@touch $@

$(VENV)/.installed-models: $(VENV)/.installed-media
	@$(PIP) -e '.[text,face]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-torch pyproject.toml
	@echo "Installing AlignMamba and its development tools into $(VENV)."
	@$(PIP) -e '.[dev]'
	@$(PIP) -e '.[dev,mmsa]' || echo "MMSA could not be installed: the test that trains it will be skipped." >&2
	@touch $@ $(VENV)/.installed-run $(VENV)/.installed-media
