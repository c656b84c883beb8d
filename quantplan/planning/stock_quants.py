"""Stock quants of a model, scored in a sensitivity table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantplan.build.build import stock_plan
from quantplan.errors import BadUsage, NothingSelected
from quantplan.llamacpp.quantize import published_ftypes
from quantplan.plan import Plan
from quantplan.planning.request import PlanRequest
from quantplan.planning.score import score
from quantplan.quant_type import QuantType
from quantplan.sensitivity_table import SensitivityTable


@dataclass(frozen=True)
class StockQuant:
    """A stock quant in a table. ``kld`` and its error are None where the table has no value for some of its types, then
    ``unmeasured`` names them; ``types``: of the tensors that llama-quantize quantizes; ``plan_kld``: expected of the plan of
    its size, None where there is none.
    """

    name: str
    file_bytes: int
    bpw: float
    kld: float | None
    kld_err: float | None
    types: Mapping[str, QuantType]
    unmeasured: str = ""
    plan_kld: float | None = None
    bytes_per_token: int | None = None  # weights read, see Model.bytes_per_token

    @property
    def ratio(self) -> float | None:
        """KLD of the plan of its size over its own."""
        return None if self.plan_kld is None or not self.kld else self.plan_kld / self.kld


def stock_quant(request: PlanRequest, table: SensitivityTable, name: str) -> StockQuant:
    """With the request's imatrix. NothingSelected for an unknown name, BadUsage where it needs an imatrix that is missing."""
    plan = stock_plan(request.model, name, request.imatrix)
    types = {tensor.name: tensor.type for tensor in plan.tensors if tensor.rule}
    kld, error, unmeasured = _expected(plan, table, request)
    bpw = plan.bits_per_weight(request.model)
    read = plan.bytes_per_token(request.model)
    return StockQuant(
        str(plan.made_from["mix"]), plan.file_bytes, bpw, kld, error, types, unmeasured, bytes_per_token=read
    )


def stock_quants(
    request: PlanRequest, table: SensitivityTable, names: Sequence[str] | None = None
) -> tuple[tuple[StockQuant, ...], tuple[str, ...]]:
    """(smallest first, why others were left out). ``names`` None: those in llama.cpp's table; of named ones none is left out:
    BadUsage.
    """
    scored, left_out = [], []
    for name in published_ftypes() if names is None else names:
        try:
            scored.append(stock_quant(request, table, name))
        except BadUsage as error:  # needs imatrix data that is not there
            if names is not None:
                raise BadUsage(f"{name}: {error}") from None
            left_out.append(f"{name}: {error}")
    return tuple(sorted(scored, key=lambda quant: (quant.file_bytes, quant.name))), tuple(left_out)


def _expected(plan: Plan, table: SensitivityTable, request: PlanRequest) -> tuple[float | None, float | None, str]:
    """(KLD, its error, "") or (None, None, the types that the table has no value for)."""
    try:
        return *score(plan, table, request.model), ""
    except NothingSelected:
        missing = {
            tensor.type.name
            for tensor in plan.tensors
            if tensor.rule and tensor.type.name not in table.rows[tensor.name].weights
        }
        return None, None, ", ".join(sorted(missing))
