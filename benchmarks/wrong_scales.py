"""What wrong sensitivities cost: plans from a table whose scales are off by random factors, priced by the table itself.

    python benchmarks/wrong_scales.py MODEL.gguf TABLE.json

``TABLE.json``: of `quantplan probe --out`. For each size and each standard deviation of ln(scale): mean and largest excess of
the expected KLD over the best plan's, over some draws.
"""

import argparse
import math
from dataclasses import replace

import numpy as np

from quantplan.api import plan_request
from quantplan.gguf.reader import read_model
from quantplan.planning.kept_tables import read_table
from quantplan.planning.request import PlanRequest
from quantplan.planning.solving import plan_for
from quantplan.sensitivity_table import SensitivityRow, SensitivityTable

SIZES, DEVIATIONS, DRAWS = ("3.5bpw", "4.25bpw", "5bpw", "6bpw"), (0.15, 0.3, 0.5, 0.7, 1.0), 6


def scaled(row: SensitivityRow, factor: float) -> SensitivityRow:
    weights, kernel, stock = (
        {kind: kld * factor for kind, kld in klds.items()} for klds in (row.weights, row.kernel, row.stock)
    )
    return replace(row, weights=weights, kernel=kernel, stock=stock)


def drawn(table: SensitivityTable, deviation: float, seed: int) -> SensitivityTable:
    factors = np.random.default_rng(seed).standard_normal(len(table.rows)) * deviation
    rows = {name: scaled(row, math.exp(by)) for (name, row), by in zip(table.rows.items(), factors, strict=True)}
    return replace(table, rows=rows)


def kld(request: PlanRequest, table: SensitivityTable, by: SensitivityTable) -> float:
    """What ``by`` expects of the plan that ``table`` makes."""
    stored = {tensor.name: tensor.type for tensor in request.model.tensors}
    return by.predict(by.measured(plan_for(request, table)[0].types, stored))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("table")
    given = parser.parse_args()
    model = read_model(given.model)
    table = read_table(given.table, model)
    for size in SIZES:
        request = plan_request(model, size)
        best = kld(request, table, table)
        for deviation in DEVIATIONS:
            excess = [kld(request, drawn(table, deviation, seed), table) / best - 1 for seed in range(DRAWS)]
            print(f"{size:8} {deviation:4} {np.mean(excess):7.2%} {max(excess):7.2%}", flush=True)


if __name__ == "__main__":
    main()
