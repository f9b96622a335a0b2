# The same commands by hand and in CI. `make help` lists them.
.POSIX:
.PHONY: help setup demo test check soak perf lock clean

DEVICE =
WORKERS = 2
EXTRAS = --extra train --extra fuse --extra flows --extra track --extra judge --extra dev
COMPILE = .venv/bin/uv pip compile pyproject.toml $(EXTRAS) --override requirements/overrides.txt \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header --quiet $(UPGRADE)
# Ninja, which DeepSpeed looks for on PATH, lives in the virtual environment. Bytecode is kept whatever the shell says:
# each process would compile rich, Prefect and torch anew.
ACTIVATE = PYTHONDONTWRITEBYTECODE= PATH="$$PWD/.venv/bin:$$PATH"

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | expand -t 10

setup: ## .venv with everything pinned; DEVICE=cpu|cuda to choose, else by what the machine has
	@deployments/setup.sh $(DEVICE)

demo: setup ## the whole pipeline in miniature, on a CPU, in minutes
	@$(ACTIVATE) tulu run demo

test: setup ## every test but the long and the GPU ones; skipped ones and their reasons at the end
	@# Files in their order, not the ones with many tests first: a long flow at the end would leave a worker idle.
	@$(ACTIVATE) pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --session-timeout=2400 -rfEs $(ARGS)

check: setup ## lint, format, types, the dependency rule
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

soak: setup ## the long tests
	@$(ACTIVATE) pytest -m soak --timeout=7200 -rfEs $(ARGS)

perf: setup ## timed cases; the last line of each is one JSON object
	@for case in $$(grep -l __main__ perf/*.py); do echo "$$case"; $(ACTIVATE) python "$$case" || exit 1; done

lock: setup ## requirements/*.txt anew from pyproject.toml; UPGRADE=--upgrade for newer releases
	@set -- --torch-backend cpu; [ -z "$$PIP_FIND_LINKS" ] || set -- --find-links "$$PIP_FIND_LINKS"; \
	$(COMPILE) --extra serve-cpu "$$@" --output-file requirements/cpu.txt
	@$(COMPILE) --extra serve-cuda --output-file requirements/cuda.txt
	@sed 's/^\(torch==.*\)+cpu$$/\1/' requirements/cpu.txt >requirements/.cpu.txt
	@mv requirements/.cpu.txt requirements/cpu.txt

clean: ## removes .venv and caches, never the store
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
