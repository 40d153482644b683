# Two commands for users: `make demo`, `make test`. The fast path for developers: `make check`.
VENV := .venv
BIN := $(VENV)/bin
CLANG ?= clang
BPF_SOURCES := $(wildcard bpf/*.bpf.c)
BPF_OBJECTS := $(patsubst bpf/%.bpf.c,bpf/build/%.bpf.o,$(BPF_SOURCES))
BPF_HEADERS := $(wildcard bpf/lib/*.h bpf/lib/abi/*.h bpf/lib/maps/*.h)
BPF_CFLAGS := -O2 -g -target bpf -mcpu=v3 -Wall -Werror -Wno-unused-function -Ibpf -Ibpf/lib -isystem /usr/include/$(shell uname -m)-linux-gnu

.PHONY: help setup build bytecode check format test test-vm demo bench fuzz clean layouts

help:
	@echo "make demo   set up, then two clusters, one mesh, real packets"
	@echo "make test   set up, then all tests (what CI runs)"
	@echo "make test-vm the tests that need another kernel, in a virtual machine (a part of make test)"
	@echo "make check  format, lint, types, contracts, unit and property tests"
	@echo "make bench  figures into bench/RESULTS.md"
	@echo "make fuzz   decoders fed almost right bytes for two minutes (SECONDS=600: longer)"

setup:
	@tools/setup.sh

build: $(BPF_OBJECTS) cni/build/cilium-cni bench/build/netbench bytecode

# A process that may not write bytecode where the sources are compiles all it imports at every start.
bytecode:
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m compileall -q $(filter-out tests/,$(dir $(wildcard */__init__.py))); fi

bpf/build/%.bpf.o: bpf/%.bpf.c $(BPF_HEADERS)
	@mkdir -p $(@D)
	$(CLANG) $(BPF_CFLAGS) -c $< -o $@

cni/build/cilium-cni: cni/cilium-cni.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -Werror -static -o $@ $<

bench/build/netbench: bench/netbench.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -Werror -pthread -o $@ $<

check: build
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	tools/check-c.sh
	$(BIN)/pytest -q -n 2 tests/unit tests/property

format:
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	clang-format -i bpf/*.c bpf/lib/*.h bpf/lib/abi/*.h bpf/lib/maps/*.h cni/*.c

test: setup build
	@tools/test.sh

test-vm: setup build
	@tests/vm/setup.sh
	$(BIN)/pytest -q -p no:randomly tests/vm

demo: setup build
	@$(BIN)/isthmus lab demo

bench: setup build
	$(BIN)/python -m bench all

fuzz:
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),120)

clean:
	rm -rf bpf/build cni/build bench/build

layouts:
	$(BIN)/python tools/gen_layouts.py
