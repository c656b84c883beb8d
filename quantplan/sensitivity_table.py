"""The sensitivity table: the KL divergence that each (tensor, type) is expected to cost, and how sure that is.

It is the seam between measuring and solving: analyze and probe make it, solve consumes it. A pair that is not in
it was not measured; it is absent, never 0.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from quantplan.errors import ModelMismatch
from quantplan.quant_type import QuantType
from quantplan.tensor import Model, Tensor


@dataclass(frozen=True, slots=True)
class SensitivityRow:
    """One tensor. ``weights[type]``: nats/token from rounding the weights; ``kernel[type]``: from the rounding of
    activations in the backend's kernels for that type (0 where it is unknown, see ``SensitivityTable.backend``).

    ``stock[type]``: for types whose ``weights`` are those of error-compensated rounding, what ggml\'s own rounding costs.
    ``domains``: on each text of several the KLD there over the one here, which is that of all texts alike.
    ``relative_error``: standard error of the row's scale over the scale; ``source``: "probed", "borrowed" (scale from
    tensors of the same role), "prior" (no forward pass), "not run" (by a forward pass: it costs nothing) or "imported".
    ``without_importance``: types that ggml's own rounding encodes better without the imatrix's data.
    """

    tensor: str
    weights: dict[str, float]
    kernel: dict[str, float] = field(default_factory=dict)
    relative_error: float = 0.0
    source: str = "imported"
    stock: dict[str, float] = field(default_factory=dict)
    without_importance: tuple[str, ...] = ()
    domains: dict[str, float] = field(default_factory=dict)

    def in_domain(self, name: str) -> "SensitivityRow":
        """The row of one text; that of all where nothing is known of the text."""
        ratio = self.domains.get(name, 1.0)

        def there(values: Mapping[str, float]) -> dict[str, float]:
            return {kind: ratio * value for kind, value in values.items()}

        return replace(
            self, weights=there(self.weights), kernel=there(self.kernel), stock=there(self.stock), domains={}
        )

    def damage(self, type_name: str) -> float:
        """Nats per token; KeyError for a type that was not measured."""
        return self.weights[type_name] + self.kernel.get(type_name, 0.0)

    def is_compensated(self, type_name: str) -> bool:
        """Whether ``weights`` holds the damage of error-compensated rounding for that type."""
        return type_name in self.stock


@dataclass(frozen=True)
class Interaction:
    """How the damage of many tensors adds up: KLD of the whole = factor * S * (1 + curvature * S), S the sum of singles.

    Fitted on uniform swaps of all tensors at once, on more text than the singles, so that the factor also corrects their
    level (and that of the kernels' part, which is priced by the same scales); a plain sum where nothing was measured.
    Curvature is the second order of what a first-order sum leaves out: on the reference model 1.9 per nat: 2 % at a sum
    of 0.013 (all Q4_K), a third at 0.18 (all Q2_K).
    """

    factor: float = 1.0
    curvature: float = 0.0
    relative_error: float = 0.0

    def total(self, sum_of_singles: float) -> float:
        return self.factor * sum_of_singles * (1 + self.curvature * sum_of_singles)


@dataclass(frozen=True)
class SensitivityTable:
    """All rows of a model in nats per token, and what they were made from."""

    model_digest: str
    rows: dict[str, SensitivityRow]
    interaction: Interaction = Interaction()
    backend: str = ""  # whose kernels ``kernel`` speaks of; empty where they are not in the table
    calibrated: bool = False  # scales measured in KLD, not taken from a prior
    made_from: dict[str, object] = field(default_factory=dict)
    unit: str = "nats/token"
    architecture: str = ""  # of the model; empty where the table does not say it, as those of old versions
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of the rows' tensors, ggml order
    domains: dict[str, Interaction] = field(default_factory=dict)  # of each text of several: how damage adds up there

    def without_importance(self, types: Mapping[str, QuantType]) -> tuple[str, ...]:
        """The tensors that are to be encoded without the imatrix's data where they take these types."""
        every = self.made_from.get("without_importance", ())  # of tables that have it for whole tensors
        whole = set(map(str, every)) if isinstance(every, list | tuple) else set()
        return tuple(
            name
            for name, kind in types.items()
            if name in whole or (name in self.rows and kind.name in self.rows[name].without_importance)
        )

    def described(self, model: Model) -> "SensitivityTable":
        """The table with the architecture and the shapes of its model, by which it can be used for a sibling."""
        shapes = {name: model.by_name[name].shape for name in self.rows if name in model.by_name}
        return replace(self, architecture=model.architecture, shapes=shapes)

    def in_domain(self, name: str) -> "SensitivityTable":
        """The table of one text of those that were probed; KeyError for another."""
        rows = {tensor: row.in_domain(name) for tensor, row in self.rows.items()}
        return replace(self, rows=rows, interaction=self.domains[name], domains={})

    def predict_domains(self, assignment: dict[str, str]) -> dict[str, tuple[float, float]]:
        """``predict`` on each text of several."""
        return {name: self.in_domain(name).predict(assignment) for name in self.domains}

    def domain_damages(self, tensor: str, damage: float) -> tuple[float, ...]:
        """A damage of the tensor on each text of several, in the order of ``domains``, on the scale of expected KLDs to first
        order."""
        ratios = self.rows[tensor].domains
        return tuple(curve.factor * ratios.get(name, 1.0) * damage for name, curve in self.domains.items())

    def check_belongs_to(self, model: Model, tensors: Iterable[str]) -> None:
        """ModelMismatch naming what is missing unless every tensor has a row."""
        missing = [name for name in tensors if name not in self.rows]
        if missing:
            raise ModelMismatch(
                f"the sensitivity table has no row for {missing[0]}"
                + (f" and {len(missing) - 1} more tensors" if len(missing) > 1 else "")
                + f" of {model.path.name}; was it made from another model?"
            )

    def damage(self, tensor: Tensor, quant: QuantType) -> float | None:
        """Nats per token of storing the tensor as the type: 0 for the type it has, None where it was not measured."""
        if quant == tensor.type:
            return 0.0
        row = self.rows.get(tensor.name)
        return row.damage(quant.name) if row and quant.name in row.weights else None

    def measured(self, types: Mapping[str, QuantType], stored: Mapping[str, QuantType]) -> dict[str, str]:
        """The assignment as ``predict`` takes it: what stays as ``stored`` costs nothing, unless that has a measurement."""
        return {
            name: quant.name
            for name, quant in types.items()
            if quant != stored[name] or (name in self.rows and quant.name in self.rows[name].weights)
        }

    def with_stock_rounding(self, compensated: Collection[str] = ()) -> "SensitivityTable":
        """The table for files with ggml's own rounding of all tensors but those named."""
        rows = {
            name: row if name in compensated else replace(row, weights=row.weights | row.stock, stock={})
            for name, row in self.rows.items()
        }
        return replace(self, rows=rows)

    def predict(self, assignment: dict[str, str]) -> tuple[float, float]:
        """(KLD in nats/token, its standard error) of a file with these stored types.

        Tensors left out of the assignment keep their bytes and cost nothing. The error joins the rows' own errors,
        taken as independent, with that of the interaction.
        """
        weights = kernel = variance = 0.0
        for name, quant in assignment.items():
            row = self.rows[name]
            weights += row.weights[quant]
            kernel += row.kernel.get(quant, 0.0)
            variance += (row.relative_error * row.damage(quant)) ** 2
        total = self.interaction.total(weights) + self.interaction.factor * kernel
        slope = total / (weights + kernel) if weights + kernel > 0 else 1.0
        return total, math.sqrt(slope**2 * variance + (self.interaction.relative_error * total) ** 2)
