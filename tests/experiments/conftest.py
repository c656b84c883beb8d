"""A model so small that a forward pass takes a tenth of a second, and texts of a few windows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from model_parts import imatrix_of
from tiny_models import tiny_tied

from quantplan.experiments.pricing import Pricing, PricingOptions, price
from quantplan.experiments.probe import ProbeOptions
from quantplan.formats.gguf import read_model
from quantplan.imatrix import Imatrix
from quantplan.llamacpp import quantize
from quantplan.quant_type import parse_types
from quantplan.tensor import Model, Tensor


@dataclass(frozen=True)
class Case:
    """All that a probe is given."""

    model: Model
    tensors: tuple[Tensor, ...]
    imatrix: Imatrix
    text: str
    options: ProbeOptions = ProbeOptions(n_ctx=128, windows=16, extend=False, threads=1)


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
def priced(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pricing, Path]:
    """The damage table of ``case`` in K-types and Q8_0, and the folder of its cache."""
    cache = tmp_path_factory.mktemp("cache")
    options = PricingOptions(parse_types("k,Q8_0,F16"), case.options, sample_elements=1 << 16, threads=1)
    return price(case.model, case.tensors, case.imatrix, case.text, options, cache), cache
