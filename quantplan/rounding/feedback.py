"""The two ways in which codes of a panel are chosen: error feedback, then coordinate descent.

Both take the columns in blocks: what lies outside of a block acts on it through one matrix product, what lies inside column
by column. Sources: OBQ (arXiv 2208.11580) and GPTQ (arXiv 2210.17323) for the feedback in lazy blocks, CDQuant (arXiv
2406.17542) for coordinate descent.
"""

import numpy as np

from quantplan.rounding.metric import Metric
from quantplan.rounding.panel import ScalarPanel, reciprocal, round_chunk
from quantplan.rounding.refit import refit
from quantplan.rounding.threads import spans

BLOCK, CHUNK = 256, 32  # columns per large and per small matrix product


def feed_back(panel: ScalarPanel, metric: Metric) -> None:
    """Rounds the live columns in the metric's order, each making up for the errors of those before it."""
    order, factor = metric.order, metric.feedback
    errors = panel.errors[: len(order)]  # meanwhile in the order of rounding: a copy would be as large as the panel
    for block in spans(len(order), BLOCK):
        pull = factor[: block.start, block].T @ errors[: block.start]
        for inner in spans(block.stop - block.start, CHUNK):
            chunk = slice(block.start + inner.start, block.start + inner.stop)
            goal = pull[inner]
            goal += factor[block.start : chunk.start, chunk].T @ errors[block.start : chunk.start]
            columns = order[chunk]
            of = columns // panel.layout.sub_block
            before = panel.weights[columns]
            if panel.minimums is not None:
                before += panel.minimums[of]
            goal += before
            coupling = np.ascontiguousarray(factor[chunk, chunk].T)
            levels, _ = round_chunk(panel.rounder, goal, coupling, panel.scales[of], panel.inverse[of], before)
            errors[chunk] = panel.put(columns, levels, of)
    for block in spans(len(panel.errors), BLOCK):
        panel.set_errors(block)


def descend(panel: ScalarPanel, metric: Metric, refitting: bool = False) -> int:
    """One sweep of coordinate descent in the natural order; the number of codes that changed.

    Each code becomes the best one given all others: nearest to q_j + (E H)_j / H_jj with E the errors. ``refitting``:
    after the codes of each block, its scales.
    """
    hessian, changed = metric.hessian, 0
    inverse_diagonal = reciprocal(metric.diagonal)  # 0 for dead inputs: their codes stay
    for block in spans(len(hessian), BLOCK):
        pull = hessian[block] @ panel.errors
        for inner in spans(block.stop - block.start, CHUNK):
            chunk = slice(block.start + inner.start, block.start + inner.stop)
            of = np.arange(chunk.start, chunk.stop) // panel.layout.sub_block
            scale = panel.scales[of]
            before = panel.levels(chunk) * scale
            goal = pull[inner] * inverse_diagonal[chunk, None]
            goal += before
            coupling = hessian[chunk, chunk] * inverse_diagonal[chunk, None]
            levels, changes = round_chunk(panel.rounder, goal, coupling, scale, panel.inverse[of], before)
            changed += int(np.count_nonzero(changes))
            panel.errors[chunk] = panel.put(chunk, levels, of)
            later = slice(0 if refitting else inner.stop, block.stop - block.start)
            pull[later] += hessian[block, chunk][later] @ changes
        if refitting:
            refit(panel, hessian, pull, block)
    return changed


def row_energies(values: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """float64 [rows]: x H x^T of each row x of ``values.T``; float32 [columns, rows], half the products by symmetry."""
    out = np.zeros(values.shape[1])
    for block in spans(len(values), BLOCK):
        pull = hessian[block, block] @ values[block]
        if block.start:
            pull += 2 * (hessian[block, : block.start] @ values[: block.start])
        out += np.einsum("ij,ij->j", pull, values[block], dtype=np.float64)
    return out
