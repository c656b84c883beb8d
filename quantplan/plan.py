"""The plan: one type for each tensor of one model, the exact size of the file, and what to expect of it."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from quantplan.cache_sensitivity import ChosenCache
from quantplan.cache_types import parse_kv
from quantplan.errors import ModelMismatch, NotAsPlanned
from quantplan.quant_type import QuantType
from quantplan.tensor import Model


@dataclass(frozen=True)
class Outcome:
    """What the solver says: ``bound`` is a proven lower limit of the objective, ``gap`` = (objective - bound) / objective.

    ``minimised``: "sum" of damages, "tail" (root of the sum of their squares) or "max", all in nats per token, or
    "bytes". ``prices``: what one more unit of a limit would save of the objective at the margin, by the limit's name
    (the multipliers of the Lagrangian bound); a limit that does not bind has price 0.
    """

    status: str  # "optimal", "feasible" (time ran out), or "given" for plans that were imported
    objective: float | None = None
    bound: float | None = None
    gap: float | None = None
    seconds: float = 0.0
    minimised: str = "sum"
    prices: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """A limit that a plan was made under, in whole units ("bytes", "ns/token" ...), and what the plan uses of it."""

    name: str
    unit: str
    limit: int
    used: int


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor of the finished file. ``rule``: llama-quantize gets a rule for its type; otherwise it is copied.

    ``compensated``: its blocks are replaced by error-compensated rounding after llama-quantize has built the file.
    """

    name: str
    type: QuantType
    bytes: int
    rule: bool
    compensated: bool = False


@dataclass(frozen=True)
class ImatrixUse:
    """The imatrix that a plan is built with. Its file name becomes part of the built file, so it counts for the size."""

    path: str
    digest: str
    dataset: str | None
    entries: int
    chunks: int
    excluded: tuple[str, ...] = ()  # tensors encoded without importance: their data are zeros or spoil the encoding

    @property
    def file(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class RoundingUse:
    """The second moments that compensated rounding needs: ``chunks`` chunks of ``n_ctx`` tokens of the calibration text."""

    text_digest: str
    n_ctx: int
    chunks: int


@dataclass(frozen=True)
class Plan:
    """Each tensor of the model exactly once, in the model's order."""

    model_path: str
    model_name: str
    model_digest: str
    tensors: tuple[PlannedTensor, ...]
    base_ftype: str  # the file type handed to llama-quantize; every quantizable tensor has a rule of its own
    metadata_bytes: int
    file_bytes: int
    budget_bytes: int | None = None
    budget_asked: str = ""
    imatrix: ImatrixUse | None = None
    predicted_kld: float | None = None  # nats/token
    predicted_kld_err: float | None = None
    calibrated: bool = False
    outcome: Outcome = Outcome("given")
    layer_types: tuple[tuple[int, str], ...] = ()  # layer mode: the stock quant of each block
    flags: str = ""  # layer mode: embeddings and output, as --token-embedding-type and --output-tensor-type
    limits: tuple[Limit, ...] = ()  # besides the size of the file
    on_cpu: tuple[str, ...] = ()  # --override-tensor patterns of what stays in RAM when the rest is on a GPU
    predicted_tps: dict[str, float] = field(default_factory=dict)  # tokens/s: generation, prompt and their errors
    made_from: dict[str, object] = field(default_factory=dict)
    tensor_split: tuple[int, ...] = ()  # blocks on each of several GPUs, the output counted as one more: --tensor-split
    cache: ChosenCache | None = None  # None: the types of the KV cache were not part of the choice
    rounding: RoundingUse | None = None  # None: ggml's own encoder throughout
    stock_rounding_kld: float | None = None  # ``predicted_kld`` of the same types with ggml's own rounding
    predicted_domains: dict[str, tuple[float, float]] = field(
        default_factory=dict
    )  # on each text of several: KLD and its error

    @property
    def compensated(self) -> tuple[str, ...]:
        """Names of the tensors with error-compensated rounding."""
        return tuple(tensor.name for tensor in self.tensors if tensor.compensated)

    @property
    def encodings(self) -> dict[str, str]:
        """How every tensor is stored, for keys of what depends on its weights: the type, and whether it is compensated."""
        return {
            tensor.name: f"{tensor.type} compensated" if tensor.compensated else tensor.type.name
            for tensor in self.tensors
        }

    def with_stock_rounding(self) -> "Plan":
        """The same types, rounded as llama-quantize does throughout; the error of the expected KLD stays in proportion."""
        if self.rounding is None:
            return self
        kld, error = self.stock_rounding_kld, self.predicted_kld_err
        if error is not None:
            error = error * kld / self.predicted_kld if kld is not None and self.predicted_kld else None
        return replace(
            self,
            tensors=tuple(replace(tensor, compensated=False) for tensor in self.tensors),
            rounding=None,
            predicted_kld=kld,
            predicted_kld_err=error,
            stock_rounding_kld=None,
            predicted_domains={},
        )

    def with_compensation(self, names: Collection[str], use: RoundingUse) -> "Plan":
        """The same types, with error-compensated rounding of the tensors named."""
        tensors = tuple(replace(tensor, compensated=tensor.name in names) for tensor in self.tensors)
        return replace(self, tensors=tensors, rounding=use if names else None)

    @property
    def serve_arguments(self) -> tuple[str, ...]:
        """Words for llama.cpp's command line that run the file as it was planned for; none where nothing special was."""
        words: list[str] = []
        if self.tensor_split:
            words += ["--tensor-split", ",".join(map(str, self.tensor_split))]
        if self.cache:
            keys, values = parse_kv(self.cache.types)
            words += ["-c", str(self.cache.ctx), "-ctk", keys.name.lower(), "-ctv", values.name.lower()]
        if self.on_cpu:
            words += ["--override-tensor", ",".join(self.on_cpu)]
        return ("-ngl", "999", *words) if words else ()

    @cached_property
    def types(self) -> dict[str, QuantType]:
        """Stored type of every tensor."""
        return {tensor.name: tensor.type for tensor in self.tensors}

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)

    def bits_per_weight(self, model: Model) -> float:
        """See ``Model.bits_per_weight``."""
        return model.bits_per_weight(self.types)

    def bytes_per_token(self, model: Model) -> int | None:
        """See ``Model.bytes_per_token``."""
        return model.bytes_per_token(self.types)

    def check_belongs_to(self, model: Model) -> None:
        """ModelMismatch unless the plan was made for exactly this model."""
        if model.digest != self.model_digest:
            raise ModelMismatch(
                f"the plan was made for {self.model_name} (digest {self.model_digest[:12]}), "
                f"{model.path} has digest {model.digest[:12]}; plan again for this model with `quantplan solve`"
            )
        if odd := sorted(self.types.keys() ^ model.by_name.keys()):
            raise ModelMismatch(
                f"the plan was changed: it and {model.path} disagree about {odd[0]} and {len(odd) - 1} more tensors; plan again "
                "with `quantplan solve`"
            )

    def check_built(self, built: Model) -> None:
        """NotAsPlanned naming the tensors, unless every type and the file's size are as planned."""
        found = {tensor.name: tensor.type.name for tensor in built.tensors}
        wrong = [
            f"{t.name} is {found.get(t.name, 'missing')}, planned {t.type}"
            for t in self.tensors
            if found.get(t.name) != t.type.name
        ]
        extra = sorted(found.keys() - self.types.keys())
        wrong += [f"{name} is not in the plan" for name in extra]
        if wrong:
            more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise NotAsPlanned(
                f"{built.path}: {len(wrong)} tensors are not as planned: {'; '.join(wrong[:5])}{more}; "
                "this build of llama-quantize may ignore rules, see `quantplan doctor`"
            )
        if built.file_bytes != self.file_bytes:
            raise NotAsPlanned(
                f"{built.path}: the file has {built.file_bytes:,} bytes, the plan says {self.file_bytes:,}"
            )
