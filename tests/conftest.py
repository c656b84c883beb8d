"""Fixtures that are real and made once per session (the bundled model, a text that every Python has, an imatrix), and marks.

The fast set, ``pytest -m "not llamacpp and not slow"``, starts no tool of llama.cpp and loads no model.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # libgomp reads it when ggml is loaded: no threads that spin

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from model_parts import imatrix_of
from tiny_models import tiny_tied

from quantplan.execution import Execution
from quantplan.gguf.reader import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import isolated, quantize, tools
from quantplan.llamacpp.engine import Engine
from quantplan.llamacpp.tools import run
from quantplan.quant_type import parse_types
from quantplan.sensitivity.estimate import Sensitivities, SensitivityOptions, price
from quantplan.sensitivity.probe import ProbeOptions
from quantplan.tensor import Model, Tensor

SLOW = {"test_hub_models.py", "test_worker_pool.py", "test_report_page.py"}  # they start processes, or a browser
SLOW |= {"test_run_program.py", "test_write_model.py"}
SLOW |= {"test_compensate.py", "test_round_trip.py", "test_alternatives.py"}  # they compute for seconds
USE_LLAMACPP = {"reference_imatrix", "small_imatrix", "priced"}  # fixtures that start its tools, or load a model
DATA = Path(__file__).parents[1] / "quantplan" / "data"


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests by what they use, and puts files without marks last: what is long must not be left to one process."""
    for item in items:
        if item.path.parent.name == "tools" or USE_LLAMACPP.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.llamacpp)
        if item.path.name in SLOW:
            item.add_marker(pytest.mark.slow)
    long = {item.path for item in items if {"llamacpp", "slow"} & {mark.name for mark in item.iter_markers()}}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session", autouse=True)
def fast_set(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the fast set a test that uses llama.cpp without the mark is skipped, and says so."""
    if "not llamacpp" not in request.config.option.markexpr:
        yield
        return

    def refuse(*_arguments: object, **_options: object) -> None:
        pytest.skip("uses llama.cpp's tools or a loaded model")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tools, "find", refuse)
        patch.setattr(Engine, "__init__", refuse)
        patch.setattr(isolated, "call", refuse)
        patch.setenv("QUANTPLAN_TOOLS", os.devnull)  # for processes that a test starts
        yield


@pytest.fixture(scope="session")
def reference_model() -> Path:
    """The bundled model: qwen3, 10 blocks of width 256, F16, 20 MB."""
    return DATA / "prose-10m-f16.gguf"


@pytest.fixture(scope="session")
def calibration_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 600 kB of technical prose: the help topics of Python itself."""
    from pydoc_data.topics import topics

    path = tmp_path_factory.mktemp("calibration") / "topics.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def reference_imatrix(
    reference_model: Path, calibration_text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An imatrix of the bundled model, made by llama-imatrix over 20 chunks of 256 tokens, output.weight
    included.
    """
    path = tmp_path_factory.mktemp("imatrix") / "prose-10m.gguf"
    command = ["llama-imatrix", "-m", reference_model, "-f", calibration_text, "-o", path]
    # one thread: on a busy machine a second one costs far more than it brings (44 s instead of 3 s)
    command += ["-c", "256", "--chunks", "20", "--process-output", "--no-ppl", "-t", "1"]
    run([str(word) for word in command])
    yield path


@dataclass(frozen=True)
class Case:
    """All that a probe is given."""

    model: Model
    tensors: tuple[Tensor, ...]
    imatrix: Imatrix
    text: str
    options: ProbeOptions = ProbeOptions(n_ctx=128, chunks=16, extend=False, execution=Execution(1))


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory, calibration_text: Path) -> Case:
    """tiny_tied with 15 matrices to quantize, a made-up imatrix, some 20 windows of 128 tokens."""
    import numpy as np

    model = read_model(tiny_tied(tmp_path_factory.mktemp("case") / "tied.gguf"))
    tensors = quantize.quantizable(model)
    random = np.random.default_rng(0)
    imatrix = imatrix_of({t.name: random.lognormal(0, 0.5, (1, t.columns)) for t in tensors if t.block is not None})
    return Case(model, tensors, imatrix, calibration_text.read_text(encoding="utf-8")[:10_000])


@pytest.fixture(scope="session")
def priced(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sensitivities, Path]:
    """The damage table of ``case`` in K-types and Q8_0, and the folder of its cache."""
    cache = tmp_path_factory.mktemp("cache")
    options = SensitivityOptions(parse_types("k,Q8_0,F16"), case.options, sample_elements=1 << 16, compensate=False)
    return price(case.model, case.tensors, case.imatrix, case.text, options, cache), cache
