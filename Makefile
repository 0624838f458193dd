# make demo     one model in two workers whose framework versions cannot live together, and in process
# make test     lint, then the tests; CI runs this
# make lint     format, lint, types, and what Python 3.7 lacks
# make bench    latency: floors, in process, opexec and its peers
# make fuzz     malformed packages, led by coverage; ARGS="SECONDS FOLDER"
# make clean    remove what make made
#
# Each does its own set-up in .venv. PYTHON=/path/to/python3 chooses the interpreter, ARGS="-k name" goes to pytest or the benchmark.

bin := .venv/bin
oldest := benchmarks/frameworks/in_process.py benchmarks/frameworks/writing.py benchmarks/frameworks/model_functions.py \
    benchmarks/sampling.py benchmarks/answering.py benchmarks/processes.py benchmarks/floors/asleep_partner.py \
    ipc workers tests/conftest.py tests/models.py tests/faults/broken_models.py tests/foreign/run.py tests/ipc tests/workers \
    $(addprefix tests/frameworks/,conformance.py conftest.py run.py subject.py write_subject.py) \
    $(wildcard $(addprefix tests/frameworks/*_,cases.py factories.py models.py subjects.py))

# An empty HOME would mean the root folder; without one the account's own is taken.
ifeq ($(HOME),)
unexport HOME
endif

.PHONY: demo test lint bench fuzz clean
.NOTPARALLEL:

demo:
	@tools/setup.sh demo
	@$(bin)/python -m benchmarks.demo $(ARGS)

test: lint
	@$(bin)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint:
	@tools/setup.sh test
	@$(bin)/ruff format --check .
	@$(bin)/ruff check .
	@$(bin)/mypy
	@$(bin)/vermin --target=3.7- $(oldest)
	@$(bin)/vermin --target=3.10- opexec benchmarks tests $(wildcard examples)

bench:
	@tools/setup.sh bench
	@$(bin)/python -m benchmarks latency $(ARGS)

fuzz:
	@tools/setup.sh fuzz
	@$(bin)/python tests/fuzz/packages.py $(ARGS)

clean:
	rm -rf .venv build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
