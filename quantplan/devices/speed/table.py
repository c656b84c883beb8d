"""How fast a machine runs a model's matrices: nanoseconds per weight by type and shape, and what a token costs next to them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from quantplan.errors import ModelMismatch, QuantplanError
from quantplan.measurement import Estimate
from quantplan.quant_type import QuantType
from quantplan.tensor import Model, Tensor

GENERATION, PROMPT = 1, 512  # tokens processed together: one at a time, or llama.cpp's default n_ubatch
BATCHES = (GENERATION, PROMPT)


@dataclass(frozen=True, order=True, slots=True)
class Shape:
    """A matrix of ``columns`` x ``rows`` weights; with ``experts`` of them, each token is multiplied by ``used``."""

    columns: int
    rows: int
    experts: int = 1
    used: int = 1

    @property
    def active(self) -> int:
        """Weights that one token is multiplied by."""
        return self.columns * self.rows * self.used

    def __str__(self) -> str:
        mixture = f" ({self.used} of {self.experts})" if self.experts > 1 else ""
        return f"{self.columns}x{self.rows}{mixture}"


@dataclass(frozen=True, slots=True)
class Product:
    """The matrix product that a tensor takes part in.

    ``last_only``: of a prompt's batch only the last token comes here. So it is for the output matrix, and for the
    feed-forward part of the last block: llama.cpp drops all other tokens behind its attention (``inp_out_ids``).
    """

    shape: Shape
    last_only: bool = False
    on_cpu: bool = False  # of a table that knows two devices


@dataclass(frozen=True, slots=True)
class Speed:
    """Nanoseconds per active weight and token of one type in one shape, with standard errors.

    ``working_set``: bytes of distinct weights that were visited in turn; caches are faster than memory.
    """

    type: str
    shape: Shape
    generation: Estimate
    prompt: Estimate
    working_set: int
    on_cpu: bool = False  # of a table that knows two devices

    def at(self, batch: int) -> Estimate:
        return self.generation if batch == GENERATION else self.prompt


@dataclass(frozen=True, slots=True)
class Overhead:
    """Nanoseconds per token that are no product of a planned matrix: attention, norms, routers, starting the graph.

    ``fixed`` + ``per_block`` x blocks; ``stderr`` is that of the sum for the model's own number of blocks.
    """

    fixed: float
    per_block: float
    stderr: float

    def of(self, blocks: int) -> float:
        return self.fixed + self.per_block * blocks


@dataclass(frozen=True)
class SpeedTable:
    """All that predicts tokens per second of one model on one machine, whatever types its tensors take."""

    machine: str
    build: str  # of llama.cpp
    backend: str
    threads: int
    model_digest: str
    blocks: int  # that are run
    products: Mapping[str, Product]  # by tensor name; what is not here costs nothing that depends on its type
    speeds: tuple[Speed, ...]
    overhead: Mapping[int, Overhead]  # by batch
    stored: Mapping[str, QuantType] = field(default_factory=dict)  # types of the products' tensors in the model

    @cached_property
    def _by_key(self) -> dict[tuple[str, Shape, bool], Speed]:
        return {(speed.type, speed.shape, speed.on_cpu): speed for speed in self.speeds}

    def check_belongs_to(self, model: Model) -> None:
        """ModelMismatch unless the table was measured for this model's shapes."""
        if model.digest != self.model_digest:
            raise ModelMismatch(
                f"these speeds were measured for another model than {model.path}; run `quantplan speed --model {model.path}`"
            )

    def speed(self, quant_type: QuantType, shape: Shape, on_cpu: bool = False) -> Speed:
        """QuantplanError naming what to measure where this type and shape are missing."""
        speed = self._by_key.get((quant_type.name, shape, on_cpu))
        if speed is None:
            raise QuantplanError(
                f"no speed of {quant_type} in matrices of {shape} was measured on this machine; "
                f"run `quantplan speed` with {quant_type} among its --types"
            )
        return speed

    def product_ns(self, product: Product, quant_type: QuantType, batch: int, like: Shape | None = None) -> Estimate:
        """Nanoseconds per token of a product; ``like``: the measured shape that stands for one of fewer rows."""
        speed = self.speed(quant_type, like or product.shape, product.on_cpu)
        # a product of the last token alone costs what one of generation costs, once for the whole batch
        per_weight = speed.at(GENERATION if product.last_only else batch)
        weights = product.shape.active / (batch if product.last_only else 1)
        return Estimate(weights * per_weight.value, weights * (per_weight.stderr or 0.0))

    def tensor_ns(self, name: str, quant_type: QuantType, batch: int) -> float:
        """Nanoseconds per token of the tensor stored as ``quant_type``; 0 for one that is no product (see ``products``)."""
        product = self.products.get(name)
        return self.product_ns(product, quant_type, batch).value if product else 0.0

    def token_ns(self, types: Mapping[str, QuantType], batch: int) -> Estimate:
        """Nanoseconds per token of a file with these types; tensors that are not named stay as they are stored.

        Tensors of one type and shape share their error, others are independent.
        """
        total = 0.0
        errors: dict[tuple, float] = {}
        for name, product in self.products.items():
            quant_type = types.get(name, self.stored[name])
            cost = self.product_ns(product, quant_type, batch)
            total += cost.value
            key = quant_type.name, product
            errors[key] = errors.get(key, 0.0) + (cost.stderr or 0.0)
        overhead = self.overhead[batch]
        error = math.hypot(overhead.stderr, *errors.values())
        return Estimate(total + overhead.of(self.blocks), error)

    def tokens_per_second(self, types: Mapping[str, QuantType], batch: int) -> Estimate:
        """Predicted tokens per second: generation (tg) at batch ``GENERATION``, prompt processing (pp) at ``PROMPT``."""
        ns = self.token_ns(types, batch)
        return Estimate(1e9 / ns.value, 1e9 * (ns.stderr or 0.0) / ns.value**2)


def products(model: Model, tensors: Iterable[Tensor]) -> dict[str, Product]:
    """The matrix products of ``tensors`` (those whose type a plan chooses), by name.

    token_embd is a lookup, unless it is the output matrix too. Of a tensor ``*_exps`` a token meets
    ``<architecture>.expert_used_count`` of its ``expert_count`` matrices.
    """
    last = model.main_blocks - 1
    matrices = {}
    for tensor in tensors:
        output = tensor.role == "output" or (tensor.role == "token_embd" and model.tied)
        if model.looked_up(tensor) or (tensor.block or 0) > last:
            continue
        tail = tensor.block == last and tensor.role.startswith("ffn_")
        matrices[tensor.name] = Product(_shape(model, tensor), output or tail)
    return matrices


def _shape(model: Model, tensor: Tensor) -> Shape:
    if not tensor.routed:
        return Shape(tensor.columns, tensor.rows)  # heads stacked in one tensor are all multiplied
    used = model.experts_used(tensor)
    if used is None:
        raise QuantplanError(
            f"{model.path}: {tensor.name} has {tensor.experts} experts, but {model.architecture}.expert_used_count "
            f"is {model.hyperparameter('expert_used_count', 0) or 'missing'}: how many a token meets is not known; "
            "convert the model again"
        )
    return Shape(tensor.columns, tensor.rows // tensor.experts, tensor.experts, used)
