"""Asking llama.cpp what a model takes beside its weights: llama-fit-params with --fit-print.

The tool makes model and context without allocating anything, header-only files included, and says what it would
allocate; the vocabulary is left out by ``--override-kv``, no figure depends on it. Without a GPU the whole graph is
planned for the processor: its compute buffer is what a GPU takes, and the rows of the embeddings besides.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from quantplan.devices import memory_formulas as formulas
from quantplan.devices.memory import ASKED, Figure, MemoryNeeds
from quantplan.devices.memory_formulas import ServeSettings
from quantplan.errors import BadUsage, QuantplanError, ToolFailed, ToolMissing
from quantplan.llamacpp.quantize import UnreadableLog
from quantplan.llamacpp.tools import failure, run
from quantplan.quant_type import BY_NAME, QuantType
from quantplan.tensor import Model

TOOL = "llama-fit-params"
F16_CACHE = (BY_NAME["F16"], BY_NAME["F16"])
_MIB = 1 << 20
_ROUNDING = 0.005  # MiB: the log has two decimals
_ATTEMPTS = (
    24  # the log thread is cut off now and then: in none of 80 quiet runs, in one of seven and more on a busy machine
)
_HOST = "Host"
_DEVICE = re.compile(
    r"\b(\w+) (\d+) (\d+) (\d+) \r?$", re.MULTILINE
)  # printf of common_fit_print: model context compute
_CACHE = re.compile(r"\bsize = *([\d.]+) MiB \( *\d+ cells")
_COMPUTE = re.compile(r"(\S+) compute buffer size = *([\d.]+) MiB")


@dataclass(frozen=True)
class FitAnswer:
    """MiB that the tool said; ``exact``: to two decimals, from its log, else whole MiB rounded up.

    ``devices``: the GPUs, in whose memory cache and compute buffer are; empty where there is none.
    """

    cache: float
    compute: float
    host_compute: float
    devices: tuple[str, ...]
    exact: bool


def argv(model: Model, wanted: ServeSettings, flash_attention: bool | None) -> list[str]:
    """The command line; full offload where there is a GPU."""
    vocabulary = f"{model.architecture}.vocab_size=int:{formulas.vocabulary_size(model)}"
    batch = max(2048, wanted.ubatch)
    return [
        TOOL,
        "-m",
        str(model.path.absolute()),
        "--fit-print",
        "on",
        "-v",
        "-ngl",
        "999",
        "-c",
        str(wanted.ctx),
        "-b",
        str(batch),
        "-ub",
        str(wanted.ubatch),
        "-ctk",
        wanted.kv[0].name.lower(),
        "-ctv",
        wanted.kv[1].name.lower(),
        "-fa",
        {None: "auto", True: "on", False: "off"}[flash_attention],
        "--override-kv",
        f"tokenizer.ggml.model=str:no_vocab,{vocabulary}",
    ]


def parse(log: str) -> FitAnswer:
    """The figures of a log; UnreadableLog where even those in whole MiB are not there.

    Whole MiB stand on stdout and never fail; those with decimals are log lines of another thread. They count where
    they are all there, which the whole MiB tell.
    """
    rows = {name: tuple(map(int, found)) for name, *found in _DEVICE.findall(log)}
    if _HOST not in rows:
        raise UnreadableLog(f"{TOOL} did not say what it would allocate; it said: {log.strip()[-300:]!r}")
    devices = tuple(name for name, row in rows.items() if name != _HOST and any(row))
    buffers = [(float(size), _in_ram(name)) for name, size in _COMPUTE.findall(log)]
    found = (
        _joined([float(size) for size in _CACHE.findall(log)], [context for _, context, _ in rows.values()]),
        _joined([size for size, ram in buffers if not ram], [rows[name][2] for name in devices]),
        _joined([size for size, ram in buffers if ram], [rows[_HOST][2]]),
    )
    (cache, sure), (device, device_sure), (host, host_sure) = found
    exact = sure and device_sure and host_sure
    return FitAnswer(cache, device if devices else host, host, devices, exact)


def _in_ram(buffer: str) -> bool:
    return buffer == "CPU" or buffer.endswith("_Host")


def _joined(lines: list[float], whole: list[int]) -> tuple[float, bool]:
    """The sum in MiB, rounded up, and whether it comes from lines with decimals."""
    total = sum(lines)
    if not lines and not sum(whole):
        return 0.0, True
    if sum(whole) <= total + _ROUNDING * (len(lines) + 1) and total < sum(whole) + len(whole):
        return total + _ROUNDING * len(lines), True
    return float(sum(whole) + len(whole)), False


def ask(model: Model, wanted: ServeSettings, flash_attention: bool | None) -> FitAnswer:
    """What llama.cpp says. ToolMissing, ToolFailed where it has no tool for it, or does not know the model."""
    answer = None
    for _ in range(_ATTEMPTS):
        finished = run(argv(model, wanted, flash_attention), check=False)
        if finished.code != 0:
            _check_types(finished.log, model, wanted)
            raise failure(finished, _reason(finished.log))
        answer = parse(finished.log)
        if answer.exact:
            break
    assert answer is not None
    return answer


def _check_types(log: str, model: Model, wanted: ServeSettings) -> None:
    """BadUsage where llama.cpp refuses the types of the cache."""
    refused = re.search(r"llama_init_from_model: (.*cache.*)", log)
    if refused:
        kinds = ",".join(kind.name.lower() for kind in wanted.kv)
        raise BadUsage(f"{model.path.name} cannot keep its cache as {kinds}: {refused.group(1).strip()}")


def _reason(log: str) -> str:
    """llama.cpp's own words where it says why a model or a context cannot be made."""
    found = re.findall(r"(?:error loading model|failed to initialize the context|llama_init_from_model): (.+)", log)
    return f"cannot plan this model: {found[-1].strip()}" if found else ""


def memory_needs(
    model: Model,
    ctx: int,
    kv: tuple[QuantType, QuantType] = F16_CACHE,
    ubatch: int = 512,
    flash_attention: bool | None = None,
) -> MemoryNeeds:
    """What one sequence of ``ctx`` tokens takes beside the weights, asked of llama.cpp where it answers, else computed.

    Each figure says which. BadUsage for KV types that do not go together or do not fit the model's heads; ToolFailed
    where llama.cpp does not answer and the cache's layout is not known here either.
    """
    wanted = ServeSettings(ctx, kv, ubatch, flash_attention is not False)
    formulas.check_kv(model, wanted)
    own, crossing = formulas.kv_cache(model, wanted), formulas.crossing(model, wanted)
    try:
        answer = ask(model, wanted, flash_attention)
    except (ToolMissing, ToolFailed) as error:
        figures, reason = _computed(model, wanted, own, error), str(error)
    else:
        figures, reason = (_cache(answer, own), _compute(answer, model, wanted), _host(answer, model, wanted)), ""
    return MemoryNeeds(ctx, kv, ubatch, flash_attention, *figures, crossing, reason)


def _computed(
    model: Model, wanted: ServeSettings, own: Figure | None, error: QuantplanError
) -> tuple[Figure, Figure, Figure]:
    if own is None:
        raise ToolFailed(
            f"the KV cache of {model.path.name} ({model.architecture}) is of a kind not known here, "
            f"and llama.cpp cannot be asked: {error}"
        ) from None
    return own, formulas.compute_buffer(model, wanted), formulas.host_buffer(model, wanted)


def _cache(answer: FitAnswer, own: Figure | None) -> Figure:
    """To the byte where the formula agrees with what llama.cpp says in hundredths of a MiB."""
    told = _bytes(answer.cache)
    slack = 4 * _ROUNDING if answer.exact else len(answer.devices) + 1
    if own is not None and abs(answer.cache - own.bytes / _MIB) <= slack:
        return Figure(own.bytes, ASKED, own.how)
    return Figure(told, ASKED, f"{answer.cache:.2f} MiB")


def _compute(answer: FitAnswer, model: Model, wanted: ServeSettings) -> Figure:
    """One device's plan bounds two devices', but for copies of several masks and inputs (Gemma 3n: 5 % more)."""
    told = _bytes(answer.compute)
    if answer.devices:
        return Figure(told, ASKED, f"planned for {', '.join(answer.devices)}")
    if formulas.sliding_window(model):
        inputs = formulas.host_buffer(model, wanted).bytes
        return Figure(told + inputs, ASKED, "planned for the CPU, and a copy of the inputs")
    return Figure(told, ASKED, "planned for the CPU; a GPU takes a little less")


def _host(answer: FitAnswer, model: Model, wanted: ServeSettings) -> Figure:
    if answer.devices:
        return Figure(_bytes(answer.host_compute), ASKED, f"in RAM, next to {', '.join(answer.devices)}")
    return formulas.host_buffer(model, wanted)


def _bytes(mib: float) -> int:
    return math.ceil(mib * _MIB)
