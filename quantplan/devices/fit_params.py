"""Asking llama.cpp what a model takes next to its weights: llama-fit-params with --fit-print.

The tool makes model and context without allocating anything, header-only files included, and prints whole MiB of each
device; the vocabulary is left out by ``--override-kv``, no figure depends on it. Without a GPU the whole graph is
planned for the CPU: its compute buffer is what a GPU takes, and the rows of the embeddings besides.
"""

import re
from dataclasses import dataclass

from quantplan.abilities import check_language_model
from quantplan.cache_types import F16_CACHE, CacheTypes, kv_name
from quantplan.devices import memory_formulas as formulas
from quantplan.devices.memory import ASKED, Figure, MemoryNeeds
from quantplan.devices.memory_formulas import ServeSettings
from quantplan.errors import BadUsage
from quantplan.llamacpp.quantize import UnreadableLog
from quantplan.llamacpp.tools import failure, run
from quantplan.tensor import Model

TOOL = "llama-fit-params"
_MIB = 1 << 20
_HOST = "Host"
# printf of common_fit_print: model context compute
_DEVICE = re.compile(r"\b(\w+) (\d+) (\d+) (\d+) \r?$", re.MULTILINE)


@dataclass(frozen=True)
class DeviceMemory:
    """One line of the tool: bytes on a device, cut to whole MiB."""

    name: str
    weights: int
    cache: int
    compute: int


@dataclass(frozen=True)
class FitAnswer:
    """What the tool printed. ``gpus``: the devices that hold cache and compute buffer, empty where there is no GPU."""

    gpus: tuple[DeviceMemory, ...]
    host: DeviceMemory

    @property
    def device_names(self) -> str:
        return ", ".join(gpu.name for gpu in self.gpus)

    @property
    def compute(self) -> int:
        """Bytes, rounded up, of the compute buffers on the GPUs, or of the CPU's where there is none."""
        return sum(device.compute + _MIB for device in self.gpus or (self.host,))

    @property
    def host_compute(self) -> int:
        """Bytes, rounded up, of the compute buffer in RAM."""
        return self.host.compute + _MIB

    @property
    def cache(self) -> tuple[int, int]:
        """Bytes between which the KV cache lies, recurrent states included."""
        devices = (*self.gpus, self.host)
        least = sum(device.cache for device in devices)
        return least, least + len(devices) * _MIB


def argv(model: Model, settings: ServeSettings, flash_attention: bool | None) -> list[str]:
    """The command line; full offload where there is a GPU."""
    vocabulary = f"{model.architecture}.vocab_size=int:{formulas.vocabulary_size(model)}"
    options = {
        "-m": model.path.absolute(),
        "--fit-print": "on",
        "-ngl": 999,
        "-c": settings.ctx,
        "-b": max(2048, settings.ubatch),
        "-ub": settings.ubatch,
        "-ctk": settings.kv[0].name.lower(),
        "-ctv": settings.kv[1].name.lower(),
        "-fa": {None: "auto", True: "on", False: "off"}[flash_attention],
        "--override-kv": f"tokenizer.ggml.model=str:no_vocab,{vocabulary}",
    }
    return [TOOL, *(str(word) for option in options.items() for word in option)]


def parse(log: str) -> FitAnswer:
    """The figures that the tool printed; UnreadableLog where there are none."""
    devices = {
        name: DeviceMemory(name, *(int(mib) * _MIB for mib in figures)) for name, *figures in _DEVICE.findall(log)
    }
    host = devices.pop(_HOST, None)
    if host is None:
        raise UnreadableLog(f"{TOOL} did not say what it would allocate; it said: {log.strip()[-300:]!r}")
    gpus = (device for device in devices.values() if device.weights or device.cache or device.compute)
    return FitAnswer(tuple(gpus), host)


def ask(model: Model, settings: ServeSettings, flash_attention: bool | None) -> FitAnswer:
    """What llama.cpp says. ToolMissing, ToolFailed where it has no tool for it, or does not know the model."""
    finished = run(argv(model, settings, flash_attention), check=False)
    if finished.code != 0:
        _check_types(finished.log, model, settings)
        raise failure(finished, _reason(finished.log))
    return parse(finished.log)


def _check_types(log: str, model: Model, settings: ServeSettings) -> None:
    """BadUsage where llama.cpp refuses the types of the cache."""
    refused = re.search(r"llama_init_from_model: (.*cache.*)", log)
    if refused:
        raise BadUsage(f"{model.path.name} cannot keep its cache as {kv_name(settings.kv)}: {refused.group(1).strip()}")


def _reason(log: str) -> str:
    """llama.cpp's own words where it says why a model or a context cannot be made."""
    reasons = re.findall(r"(?:error loading model|failed to initialize the context|llama_init_from_model): (.+)", log)
    return f"cannot plan this model: {reasons[-1].strip()}" if reasons else ""


def memory_needs(
    model: Model,
    ctx: int,
    kv: CacheTypes = F16_CACHE,
    ubatch: int = 512,
    flash_attention: bool | None = None,
) -> MemoryNeeds:
    """What one sequence of ``ctx`` tokens takes next to the weights: asked of llama.cpp, computed what it does not say.

    BadUsage for a file that is not a language model, and for KV types that do not go together or do not fit the model's heads;
    BadFile for one that llama.cpp does not load; ToolMissing, ToolFailed where
    llama.cpp does not answer.
    """
    check_language_model(model)
    settings = ServeSettings(ctx, kv, ubatch, flash_attention is not False)
    formulas.check_kv(model, settings)
    answer = ask(model, settings, flash_attention)
    return MemoryNeeds(
        ctx,
        kv,
        ubatch,
        flash_attention,
        kv_cache=_cache(answer, formulas.kv_cache(model, settings)),
        compute_buffer=_compute(answer, model, settings),
        host_buffer=_host(answer, model, settings),
        crossing=formulas.crossing(model, settings),
    )


def _cache(answer: FitAnswer, computed: Figure | None) -> Figure:
    """To the byte where the formula agrees with the whole MiB that llama.cpp prints."""
    least, most = answer.cache
    if computed is not None and least <= computed.bytes < most:
        return Figure(computed.bytes, ASKED, computed.how)
    return Figure(most, ASKED, "rounded up to whole MiB")


def _compute(answer: FitAnswer, model: Model, settings: ServeSettings) -> Figure:
    """One device's plan bounds two devices', but for copies of several masks and inputs (Gemma 3n: 5 % more)."""
    if answer.gpus:
        return Figure(answer.compute, ASKED, f"planned for {answer.device_names}, rounded up to whole MiB")
    if formulas.sliding_window(model):
        inputs = formulas.host_buffer(model, settings).bytes
        return Figure(answer.compute + inputs, ASKED, "planned for the CPU, and a copy of the inputs")
    return Figure(answer.compute, ASKED, "planned for the CPU, rounded up to whole MiB; a GPU takes a little less")


def _host(answer: FitAnswer, model: Model, settings: ServeSettings) -> Figure:
    if answer.gpus:
        return Figure(answer.host_compute, ASKED, f"in RAM, next to {answer.device_names}, rounded up to whole MiB")
    return formulas.host_buffer(model, settings)
