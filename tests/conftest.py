"""Fixtures that are real and made once per session: the bundled model, a text that every Python has, an
imatrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from quantplan.llamacpp.tools import run

DATA = Path(__file__).parents[1] / "quantplan" / "data"


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
