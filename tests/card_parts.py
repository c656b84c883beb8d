"""Made-up files, their measurements, and the tables of the cards made of them."""

from dataclasses import replace

import numpy as np
from measurement_parts import MEASUREMENT
from model_parts import model_of

from quantplan.evaluate.published_files import PublishedFile
from quantplan.measurement import Estimate
from quantplan.plan import Outcome, Plan, PlannedTensor
from quantplan.quant_type import BY_NAME
from quantplan.report.card import card_text
from quantplan.report.card_data import CardData
from quantplan.report.card_origin import Identity

MODEL = model_of({"output.weight": (256, 512), "blk.0.attn_v.weight": (256, 256), "blk.1.attn_v.weight": (256, 256)})
NOBODY = Identity()


def plan_of(kind="Q4_K", **fields):
    tensors = tuple(PlannedTensor(t.name, BY_NAME[kind], t.bytes_as(BY_NAME[kind]), True) for t in MODEL.tensors)
    given = {
        "calibrated": True,
        "outcome": Outcome("optimal", 1.0, 1.0, 0.0),
        "predicted_kld": 0.0123,
        "predicted_kld_err": 0.0004,
    }
    return Plan("/home/me/model.gguf", "model", MODEL.digest, tensors, "Q4_K_M", 100, 75_000, **given | fields)


def file_of(name, size, digest=None, plan=None):
    plan = plan or plan_of()
    return PublishedFile(name, MODEL, plan.types, {each.name: each.bytes for each in plan.tensors}, size, plan, digest)


def measured(kld, error=0.0001, **fields):
    """A measurement whose KLDs of 16 chunks have this mean and about this standard error, independent of other files."""
    noise = 4 * error * np.random.default_rng(round(1e6 * kld)).standard_normal(16)
    chunks = tuple((kld + noise - noise.mean()).tolist())
    fields = {"per_chunk_kld": chunks} | fields
    return replace(MEASUREMENT, kld=Estimate(kld, error), kld_chunk_err=error, **fields)


def published(klds, sizes=(1000, 2000, 3000), **fields):
    files = tuple(file_of(f"m-{index}.gguf", size, f"d{index}") for index, size in enumerate(sizes))
    found = {file.name: (measured(kld),) for file, kld in zip(files, klds, strict=False) if kld is not None}
    return CardData(files, found, **fields)


def rows(text, first):
    """The first table whose heading begins so, as cells."""
    lines = text.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    end = next((index for index in range(start, len(lines)) if not lines[index].startswith("|")), len(lines))
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[start:end]]


def card(found, identity=NOBODY, metadata=None):
    return card_text(found, identity, metadata or {})
