"""A measurement: what one file loses against its base model, each figure with its error and the conditions
it holds under.

Figures and their standard errors are defined as llama-perplexity defines and prints them
(tools/perplexity/perplexity.cpp, ``kl_divergence``): an error is the standard deviation over all scored
tokens over sqrt(tokens - 1), as if tokens were independent. Tokens of one chunk are not, so the KLD also
carries ``kld_chunk_err``, taken from the means of whole chunks: the honest one when texts are
short, and the one that verdicts rest on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import TypeVar

from quantplan.errors import ConditionsDiffer
from quantplan.spikes import Spike

Value = TypeVar("Value")
# Raised when a figure is computed in another way, so that older records no longer compare.
METRICS_VERSION = 1  # 1: first
PERCENTILES = (99.9, 99.0, 95.0, 90.0, 10.0, 5.0, 1.0, 0.1)


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error, in the same unit; ``stderr`` None where one token or chunk is all
    there is.
    """

    value: float
    stderr: float | None


@dataclass(frozen=True)
class Conditions:
    """Everything but the measured file that the figures depend on. Threads are left out: they change speed,
    not logits.
    """

    text_digest: str
    n_ctx: int
    chunks: int
    base_digest: str
    engine: str  # "in-process" (float32 logits) or "llama-perplexity" (16-bit log-probabilities)
    backend: str
    llama_cpp: str  # version of the build that ran the model
    metrics: int = METRICS_VERSION
    cache_types: str = "f16"  # of the file's KV cache, as ``cache_types.kv_name`` writes them; the base model's is f16

    def differences(self, other: "Conditions") -> list[str]:
        """What is not the same, as ``n_ctx 256 / 512``."""
        return differing_fields(self, other)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What scoring a text says. KLD in nats per token; changes of probability and same top in percent.

    ``None`` stands for what was not measured (llama-perplexity may lose its summary), never for 0.
    """

    ppl: Estimate
    base_ppl: Estimate | None
    ln_ppl_ratio: Estimate  # mean ln(PPL(Q)/PPL(base))
    ppl_correlation: float | None  # of the two negative log likelihoods, -1 to 1
    kld: Estimate  # mean KL(base || file); error over tokens
    kld_chunk_err: float | None  # its standard error over chunks
    kld_median: float | None
    kld_maximum: float | None
    kld_percentiles: dict[float, float | None]  # of PERCENTILES
    delta_p: Estimate | None  # mean change of the true token's probability, percent
    rms_dp: Estimate  # its root mean square, percent
    same_top: Estimate  # tokens whose most probable successor is the same, percent
    per_chunk_kld: tuple[float, ...] = ()  # means of the chunks in the order of the text; empty where unknown
    per_chunk_nll: tuple[float, ...] = ()
    per_chunk_base_nll: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DomainFigures(Figures):
    """The figures of one text of several; those per chunk are part of the whole's."""

    name: str
    chunks: int


@dataclass(frozen=True, kw_only=True)
class Measurement(Figures):
    """The figures of one file. ``bpw``: bits of all tensor data over all weights, as llama.cpp prints BPW;
    ``bytes_per_token``: weights that a generated token reads, see ``Model.bytes_per_token``. ``domains``: the figures of each
    text where there are several.
    """

    file: str
    model_digest: str
    file_bytes: int
    bpw: float
    conditions: Conditions
    notes: tuple[str, ...] = ()  # what is missing, and why
    bytes_per_token: int | None = None
    spikes: tuple[Spike, ...] = ()  # chunks where the file breaks, the worst first
    domains: tuple[DomainFigures, ...] = ()  # in the order of their chunks

    @property
    def worst_domain(self) -> str | None:
        """The name of the text with the largest KLD; None where there is none above 0."""
        worst = max(self.domains, key=lambda domain: domain.kld.value, default=None)
        return worst.name if worst and worst.kld.value > 0 else None

    def domain_klds(self) -> dict[str, tuple[float, ...]]:
        """KLDs per chunk by domain."""
        return split([(domain.name, domain.chunks) for domain in self.domains], self.per_chunk_kld)


def split(domains: Sequence[tuple[str, int]], values: Sequence[Value]) -> dict[str, tuple[Value, ...]]:
    """Values of consecutive chunks by domain; ``domains``: their names and numbers of chunks."""
    ends = list(accumulate(count for _, count in domains))
    return {name: tuple(values[end - count : end]) for (name, count), end in zip(domains, ends, strict=True)}


def check_comparable(measurements: Sequence[Measurement]) -> None:
    """ConditionsDiffer naming what differs, unless all were taken under the same conditions."""
    check_conditions([(measurement.file, measurement.conditions) for measurement in measurements], "measure")


def check_conditions(taken: Sequence[tuple[str, object]], what: str) -> None:
    """ConditionsDiffer unless all (file, conditions) agree with the first; ``what``: the options that measure them again."""
    for file, conditions in taken[1:]:
        first, expected = taken[0]
        differences = differing_fields(expected, conditions)
        if differences:
            raise ConditionsDiffer(
                f"{first} and {file} were not measured under the same conditions "
                f"({'; '.join(differences)}); measure both again in one `quantplan {what}`"
            )


def differing_fields(own: object, theirs: object) -> list[str]:
    """The fields in which two dataclasses of one kind are not equal, as ``n_ctx 256 / 512``."""
    pairs = ((field.name, getattr(own, field.name), getattr(theirs, field.name)) for field in fields(own))  # type: ignore[arg-type]
    return [f"{name} {_short(one)} / {_short(other)}" for name, one, other in pairs if one != other]


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
