"""The README.md of a model on a hub, from what is known of its files. What was not measured is said not to be."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quantplan import __version__
from quantplan.devices.memory import MemoryUse
from quantplan.llamacpp.quantize import TOOL, Recipe
from quantplan.llamacpp.tools import command_line
from quantplan.measurement import Measurement
from quantplan.recipes.emit import layer_types_text
from quantplan.recipes.quantize_command import plan_rules, requantizes
from quantplan.report import card_surgery, card_use
from quantplan.report.card_data import CardData, PublishedFile
from quantplan.report.card_results import chunks_of, results
from quantplan.report.cells import estimate, gibibytes
from quantplan.report.markdown import block, code, escaped, folded, table, yaml_scalar
from quantplan.surgery.history import History

SHORT = 12  # lines; longer rules are folded
APART = 2  # standard errors between two files that are told apart
_HOST = "https://huggingface.co/"
_UNKNOWN_LICENSE = "see the base model"


@dataclass(frozen=True)
class Identity:
    """What nobody can measure: the repository the files go to, whose model it is, and who made them; None where not given."""

    repo: str | None = None
    base_model: str | None = None
    license: str | None = None
    quantized_by: str | None = None


def card_text(
    found: CardData, identity: Identity, metadata: Mapping[str, object], history: History | None = None
) -> str:
    """The card. ``metadata``: of the GGUF, arrays of strings included; ``history``: of a model that was operated on.

    BadUsage where the plan's rules cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("quantplan", "report/templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: what needs it is escaped by report.markdown
    )
    base = base_models(identity, metadata)
    text = templates.get_template("card.md").render(
        front_matter=front_matter(found, identity, metadata, operated=history is not None),
        title=escaped(f"{found.main.header.name} GGUF"),
        intro=_intro(found, base, history),
        files=_files_table(found),
        file_notes=_file_notes(found),
        surgery=card_surgery.surgery(found, history) if history else "",
        results=results(found),
        memory=_memory(found),
        llama_cpp=card_use.llama_cpp(found, identity.repo),
        llama_cpp_python=card_use.llama_cpp_python(found, identity.repo, metadata),
        ollama=card_use.ollama(found, identity.repo),
        made=[_made(each) for each in reversed(found.files)] + [_tools(found)],
        license=_license(identity, metadata, base),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


# --- whose model it is


def base_models(identity: Identity, metadata: Mapping[str, object]) -> tuple[str, ...]:
    """``owner/repo`` of what was quantized: as given, else the metadata's source, else the models that it was made from."""
    if identity.base_model:
        return (identity.base_model,)
    for key in ("general.source.huggingface.repository", "general.source.repo_url", "general.repo_url"):
        if repo := _repository(metadata.get(key)):
            return (repo,)
    return ancestors(metadata)


def ancestors(metadata: Mapping[str, object]) -> tuple[str, ...]:
    """What the metadata names as general.base_model: the models that this one was made from, not this one itself."""
    count = metadata.get("general.base_model.count", 0)
    keys = (f"general.base_model.{index}.repo_url" for index in range(count if isinstance(count, int) else 0))
    return tuple(repo for key in keys if (repo := _repository(metadata.get(key))))


def _repository(value: object) -> str | None:
    found = (
        re.fullmatch(rf"(?:{re.escape(_HOST)})?([\w.-]+/[\w.-]+)/?", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    return found[1] if found else None


def _license(identity: Identity, metadata: Mapping[str, object], base: Sequence[str]) -> str:
    named = identity.license or _text(metadata, "general.license.name") or _text(metadata, "general.license")
    link = _text(metadata, "general.license.link") if not identity.license else None
    if named:
        return f"{escaped(named)}: {escaped(link)}" if link else escaped(named)
    return f"Unknown here: {_UNKNOWN_LICENSE}" + (f" ({', '.join(map(_linked, base))})." if base else ".")


def _text(metadata: Mapping[str, object], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value.strip() else None


def _linked(repo: str) -> str:
    return f"[{escaped(repo)}]({_HOST}{repo})"


def front_matter(
    found: CardData, identity: Identity, metadata: Mapping[str, object], operated: bool = False
) -> list[str]:
    """The lines of YAML that hubs read; a key that is not known is left out."""
    base = base_models(identity, metadata)
    named = identity.license or _text(metadata, "general.license")
    lines = [f"license: {yaml_scalar(named)}"] if named else []
    for key in ("license.name", "license.link"):
        if not identity.license and (value := _text(metadata, f"general.{key}")):
            lines.append(f"{key.replace('.', '_')}: {yaml_scalar(value)}")
    languages = metadata.get("general.languages")
    lines += _yaml_list("language", languages if isinstance(languages, tuple) else ())
    lines += _yaml_list("base_model", base)
    lines += ["base_model_relation: quantized"] if base and base != ancestors(metadata) else []
    lines += [f"quantized_by: {yaml_scalar(identity.quantized_by)}"] if identity.quantized_by else []
    imatrix = any(each.plan and each.plan.imatrix for each in found.files)
    tags = ["gguf", "quantplan", *(["imatrix"] if imatrix else []), *(["layer-surgery"] if operated else [])]
    return [*lines, "library_name: gguf", *_yaml_list("tags", tags)]


def _yaml_list(key: str, values: Sequence[str]) -> list[str]:
    return [f"{key}:", *(f"- {yaml_scalar(each)}" for each in values)] if values else []


# --- the files


def _intro(found: CardData, base: Sequence[str], history: History | None) -> str:
    of = " and ".join(map(_linked, base)) if base else escaped(found.main.header.name)
    if history:
        original = of if base else code(history.source)
        of = f"{escaped(found.main.header.name)}, a model made of the layers of {original} without training,"
    text = f"GGUF files of {of} for llama.cpp and what is built on it"
    if not any(each.plan for each in found.files):
        return f"{text}."
    return f"{text}: written by stock llama-quantize, with a type for each {_unit(found)} chosen by quantplan {__version__}."


def _unit(found: CardData) -> str:
    units = {"layer" if each.plan.layer_types else "tensor" for each in found.files if each.plan}
    return " or ".join(sorted(units))


def _files_table(found: CardData) -> str:
    conditions, measured = found.on_common_ground()
    rows = [
        [
            _name(each),
            _types(each),
            f"{each.file_bytes / 1e9:.{2 if each.file_bytes >= 1e9 else 4}f}",
            f"{each.bpw:.3f}",
            _kld(each, measured),
            _advice(each, found, measured),
        ]
        for each in found.files
    ]
    return table(
        ["File", "Types", "Size, GB", "bpw", "KLD, nats per token", "When to choose it"], rows, texts=(0, 1, -1)
    )


def _name(file: PublishedFile) -> str:
    return code(file.name) + (f" and {file.shards - 1} more" if file.shards > 1 else "")


def _types(file: PublishedFile) -> str:
    """The types that make up most of it."""
    whole = sum(file.by_type.values())
    large = [f"{name} {100 * size / whole:.0f} %" for name, size in file.by_type.items() if size >= 0.01 * whole]
    return ", ".join(large)


def _kld(file: PublishedFile, measured: Mapping[str, Measurement]) -> str:
    if file.name in measured:
        return estimate(measured[file.name].kld)
    plan = file.plan
    if plan and plan.predicted_kld is not None and plan.calibrated:
        error = f" ± {plan.predicted_kld_err:.2g}" if plan.predicted_kld_err is not None else ""
        return f"not measured (expected: {plan.predicted_kld:.3g}{error})"
    return "not measured"


def _advice(file: PublishedFile, found: CardData, measured: Mapping[str, Measurement]) -> str:
    """What follows from size, KLD and memory; nothing else is claimed."""
    words = []
    if len(found.files) > 1 and file is found.files[0]:
        words.append("the smallest")
    own = measured.get(file.name)
    if own and (better := _no_larger_and_better(file, found, measured)):
        words.append(f"{code(better)} is no larger and loses less")
    elif own and len(measured) > 1 and own.kld.value == min(each.kld.value for each in measured.values()):
        words.append("loses least of those measured")
    if file.memory:
        use = file.memory[0]
        words.append(f"{gibibytes(use.vram)} GiB of VRAM at {use.needs.ctx:,} tokens")
    if file.plan and file.plan.on_cpu:
        words.append("planned to keep some tensors in RAM")
    return "; ".join(words)


def _no_larger_and_better(file: PublishedFile, found: CardData, measured: Mapping[str, Measurement]) -> str | None:
    own = measured[file.name]
    for other in found.files:
        its = measured.get(other.name)
        if its and other.file_bytes <= file.file_bytes and _apart(own, its) and its.kld.value < own.kld.value:
            return other.name
    return None


def _apart(one: Measurement, two: Measurement) -> bool:
    """Whether two KLDs differ by more than their errors over windows explain, taken as if they were independent."""
    if one.kld_chunk_err is None or two.kld_chunk_err is None:
        return False
    return abs(one.kld.value - two.kld.value) > APART * math.hypot(one.kld_chunk_err, two.kld_chunk_err)


def _file_notes(found: CardData) -> list[str]:
    conditions, measured = found.on_common_ground()
    if conditions is None:
        return ["No KLD was measured for these files."]
    missing = [code(each.name) for each in found.files if each.name not in measured]
    notes = [f"KLD against the unquantized model on {chunks_of(conditions)}, ± standard error over tokens."]
    return notes + ([f"Not measured under these conditions: {', '.join(missing)}."] if missing else [])


# --- memory


def _memory(found: CardData) -> str:
    rows = [_memory_row(each, use) for each in found.files for use in each.memory]
    if not rows:
        return "Not reckoned."
    asked = all(each.memory[0].needs.compute_buffer.asked for each in found.files if each.memory)
    by = "llama.cpp says (llama-fit-params)" if asked else "is computed as an upper bound, llama.cpp was not asked"
    headings = ["File", "Context", "VRAM, all layers on a GPU", "RAM beside it", "RAM without a GPU"]
    note = f"GiB for one sequence with an F16 KV cache; weights from the file, the rest as {by}."
    note += " Drivers and other programs come on top."
    return f"{table(headings, rows)}\n\n{note}"


def _memory_row(file: PublishedFile, use: MemoryUse) -> list[str]:
    needs = use.needs
    alone = sum(file.sizes.values()) + needs.kv_cache.bytes + needs.compute_buffer.bytes + needs.host_buffer.bytes
    return [code(file.name), f"{needs.ctx:,}", *map(gibibytes, (use.vram, use.ram, alone))]


# --- how it was made


def rules_name(file: PublishedFile) -> str:
    """What the rules of a plan's file are called beside it."""
    return f"{file.name.removesuffix('.gguf')}.tensor-types.txt"


def rules_text(file: PublishedFile) -> str | None:
    """The rules for llama-quantize; None for a file that is published without its plan."""
    return "".join(f"{rule}\n" for rule in plan_rules(file.plan)) if file.plan else None


def _made(file: PublishedFile) -> str:
    parts = [f"### {escaped(file.name)}"]
    plan = file.plan
    if file.stock_quant:
        return "\n\n".join([*parts, _stock(file)])
    if plan is None:
        return "\n\n".join([*parts, "Published as it is; how it was made is not recorded here."])
    parts.append(_chosen(file))
    source = _as_argument(file.header.path.name)
    recipe = Recipe(
        plan.base_ftype,
        rules_file=Path(rules_name(file)),
        imatrix=Path(plan.imatrix.file) if plan.imatrix else None,
        allow_requantize=requantizes(plan, file.header),
    )
    command = command_line([TOOL, *recipe.options(), source, file.name, plan.base_ftype])
    parts.append(block("\n".join([*_solving(file), command]), "sh"))
    if plan.layer_types:
        parts.append(_maybe_folded("LAYER_TYPES and FLAGS", layer_types_text(plan)))
    parts.append(_maybe_folded(f"Rules for --tensor-type-file, {rules_name(file)}", rules_text(file) or ""))
    return "\n\n".join(parts)


def _as_argument(name: str) -> str:
    """A file's name that no program takes for an option."""
    return f"./{name}" if name.startswith("-") else name


def _stock(file: PublishedFile) -> str:
    """The stock mix beside the plans, and the command that makes it."""
    used = file.header.metadata.get("quantize.imatrix.file")
    recipe = Recipe(file.stock_quant, imatrix=Path(str(used)) if used else None)
    command = command_line([TOOL, *recipe.options(), _as_argument(file.made_of), file.name, file.stock_quant])
    made = f"The stock quant {code(file.stock_quant)} of llama.cpp, {'with' if used else 'without'} an imatrix."
    return f"{made}\n\n{block(command, 'sh')}"


def _maybe_folded(summary: str, text: str) -> str:
    if len(text.splitlines()) > SHORT:
        return folded(summary, block(text, "text"))
    return f"{escaped(summary)}:\n\n{block(text, 'text')}"


def _solving(file: PublishedFile) -> list[str]:
    """The command that solved for the plan, private folders left out of it."""
    command = file.plan.made_from.get("command") if file.plan else None
    if not isinstance(command, str) or not command:
        return []
    return [shlex.join(_public(word) for word in shlex.split(command))]


def _public(word: str) -> str:
    """A path that starts at the root is its last part: where it lay says something of a machine, nothing of the plan."""
    head, equals, tail = word.rpartition("=")
    return f"{head}{equals}{Path(tail).name}" if tail.startswith(("/", "~")) else word


def _chosen(file: PublishedFile) -> str:
    plan = file.plan
    assert plan is not None
    status = plan.outcome.status
    if status == "given":
        words = ["Its types were given, not solved for."]
    else:
        proven = (
            "proven optimal"
            if status == "optimal"
            else f"within {plan.outcome.gap:.2%} of the optimum"
            if plan.outcome.gap
            else status
        )
        words = [f"Chosen by integer programming, {proven}."]
        words.append(
            "Damages were measured by probing." if plan.calibrated else "Damages were not measured: scales are a prior."
        )
    if plan.predicted_kld is not None and plan.calibrated:
        error = f" ± {plan.predicted_kld_err:.2g}" if plan.predicted_kld_err is not None else ""
        words.append(f"Expected KLD {plan.predicted_kld:.3g}{error} nats per token.")
    if plan.imatrix:
        words.append(_imatrix(file))
    else:
        words.append("No imatrix.")
    text, ctx = plan.made_from.get("calibration"), plan.made_from.get("ctx")
    if isinstance(text, str) and text:
        words.append(f"Calibration text {code(text[:12])}, windows of {ctx} tokens.")
    return " ".join(words)


def _imatrix(file: PublishedFile) -> str:
    assert file.plan is not None and file.plan.imatrix is not None
    used = file.plan.imatrix
    of = f" of {code(used.dataset)}" if used.dataset else ""
    chunks = f", {used.chunks} chunks{of}" if used.chunks > 0 else of
    return f"Imatrix {code(used.file)}: {used.entries} tensors{chunks}."


def _tools(found: CardData) -> str:
    builds = {
        str(each.plan.made_from["llama_cpp"])
        for each in found.files
        if each.plan and "llama_cpp" in each.plan.made_from
    }
    made = f" with llama.cpp {escaped(', '.join(sorted(builds)))}" if builds else ""
    unbuilt = [code(each.name) for each in found.files if each.plan and each.digest is None]
    words = f"Planned{made}; quantplan builds each file, reads it back, and checks every type and the size."
    if not any(each.plan for each in found.files):
        return ""
    return words + (f" Not built yet: {', '.join(unbuilt)}." if unbuilt else "")
