"""The files of a model card: what they are, when to choose which, and the memory that they take."""

from collections.abc import Mapping
from itertools import combinations

from quantplan.devices.memory import MemoryUse
from quantplan.evaluate.published_files import PublishedFile
from quantplan.evaluate.significance import kld_gap
from quantplan.measurement import Measurement
from quantplan.report.card_data import CardData
from quantplan.report.cells import READ, estimate, gibibytes, per_token
from quantplan.report.markdown import code, table
from quantplan.report.measurement_table import chunks_of

Measured = Mapping[str, Measurement]  # by file name, under the same conditions


def files_table(data: CardData) -> str:
    _, measured = data.comparable()
    rows = [
        [
            code(file.name) + (f" and {file.shards - 1} more" if file.shards > 1 else ""),
            _types(file),
            f"{file.file_bytes / 1e9:.{2 if file.file_bytes >= 1e9 else 4}f}",
            f"{file.bpw:.3f}",
            per_token(file.bytes_per_token),
            _kld(file, measured),
            _advice(file, data, measured),
        ]
        for file in data.files
    ]
    return table(["File", "Types", "Size, GB", "bpw", READ, "KLD", "When to choose it"], rows, texts=(0, 1, -1))


def _types(file: PublishedFile) -> str:
    """The types that make up most of it."""
    whole = sum(file.by_type.values())
    large = [f"{name} {100 * size / whole:.0f} %" for name, size in file.by_type.items() if size >= 0.01 * whole]
    return ", ".join(large)


def _kld(file: PublishedFile, measured: Measured) -> str:
    if file.name in measured:
        return estimate(measured[file.name].kld)
    plan = file.plan
    if plan and plan.predicted_kld is not None and plan.calibrated:
        error = f" ± {plan.predicted_kld_err:.2g}" if plan.predicted_kld_err is not None else ""
        return f"not measured (expected: {plan.predicted_kld:.3g}{error})"
    return "not measured"


def _advice(file: PublishedFile, data: CardData, measured: Measured) -> str:
    """What follows from size, KLD and memory; nothing else is claimed."""
    words = ["the smallest"] if len(data.files) > 1 and file is data.files[0] else []
    if better := _no_larger_and_better(file, data, measured):
        words.append(f"{code(better)} is no larger and has a significantly lower KLD")
    elif _lowest(file, measured):
        words.append("the lowest KLD of those measured")
    if file.memory:
        use = file.memory[0]
        words.append(f"{gibibytes(use.vram)} GiB of VRAM at {use.needs.ctx:,} tokens")
    if file.plan and file.plan.on_cpu:
        words.append("planned to keep some tensors in RAM")
    if file.plan and file.plan.cache:
        cache = file.plan.cache
        words.append(
            f"planned with a KV cache of {cache.types} at {cache.ctx:,} tokens, KLD {estimate(cache.kld)} besides"
        )
    if file.plan and file.plan.tensor_split:
        words.append(f"planned for {len(file.plan.tensor_split)} GPUs")
    return "; ".join(words)


def _no_larger_and_better(file: PublishedFile, data: CardData, measured: Measured) -> str | None:
    """The first file that is no larger and has a significantly lower KLD."""
    names = [other.name for other in data.files if other.file_bytes <= file.file_bytes]
    return next((name for name in names if _significantly_lower(name, file.name, measured)), None)


def _lowest(file: PublishedFile, measured: Measured) -> bool:
    """Whether its KLD is significantly lower than that of every other file."""
    others = measured.keys() - {file.name}
    return bool(others) and all(_significantly_lower(file.name, other, measured) for other in others)


def _significantly_lower(name: str, other: str, measured: Measured) -> bool:
    if name == other or name not in measured or other not in measured:
        return False
    gap = kld_gap(measured[name], measured[other])
    return gap is not None and gap.decided and gap.difference < 0


def notes(data: CardData) -> list[str]:
    conditions, measured = data.comparable()
    if conditions is None:
        return ["No KLD was measured for these files."]
    lines = [
        f"KLD: against the unquantized model, nats per token, on {chunks_of(conditions)}, ± standard error over tokens."
    ]
    missing = [code(file.name) for file in data.files if file.name not in measured]
    if missing:
        lines.append(f"Not measured under these conditions: {', '.join(missing)}.")
    if any(kld_gap(*pair) is None for pair in combinations(measured.values(), 2)):
        lines.append("Not all of these KLDs are comparable: a test of their difference needs the KLD of each chunk.")
    return lines


def memory(data: CardData) -> str:
    rows = [_memory_row(file, use) for file in data.files for use in file.memory]
    if not rows:
        return "Not estimated."
    headings = ["File", "Context", "VRAM, all layers on a GPU", "RAM besides", "RAM without a GPU"]
    note = "GiB for one sequence with an F16 KV cache; weights from the file, the rest as llama-fit-params says."
    note += " Drivers and other programs come on top."
    return f"{table(headings, rows)}\n\n{note}"


def _memory_row(file: PublishedFile, use: MemoryUse) -> list[str]:
    needs = use.needs
    alone = sum(file.sizes.values()) + needs.kv_cache.bytes + needs.compute_buffer.bytes + needs.host_buffer.bytes
    return [code(file.name), f"{needs.ctx:,}", *map(gibibytes, (use.vram, use.ram, alone))]
