"""How the files of a model card were made: plan, commands and rules, so that anybody can make them again."""

import shlex
from pathlib import Path

from quantplan.evaluate.published_files import PublishedFile
from quantplan.llamacpp.quantize import TOOL, Recipe
from quantplan.llamacpp.tools import command_line
from quantplan.plan import Plan
from quantplan.recipes.emit import layer_types_text
from quantplan.recipes.quantize_command import plan_rules, requantizes
from quantplan.report.card_data import CardData
from quantplan.report.markdown import block, code, escaped, folded
from quantplan.report.rounding import plan_rounding, rules_note

SHORT = 12  # lines; longer rules are folded


def rules_name(file: PublishedFile) -> str:
    """The name of the file with the rules of a plan's file."""
    return f"{file.name.removesuffix('.gguf')}.tensor-types.txt"


def rules_text(file: PublishedFile) -> str | None:
    """The rules for llama-quantize; None for a file that is published without its plan."""
    return "".join(f"{rule}\n" for rule in plan_rules(file.plan)) if file.plan else None


def made(file: PublishedFile) -> str:
    """A section of Markdown."""
    parts = [f"### {escaped(file.name)}"]
    plan = file.plan
    if file.stock_quant:
        return "\n\n".join([*parts, _stock(file)])
    if plan is None:
        return "\n\n".join([*parts, "Published as it is; how it was made is not recorded here."])
    parts.append(_chosen(plan))
    source = _as_argument(file.header.path.name)
    recipe = Recipe(
        plan.base_ftype,
        rules_file=Path(rules_name(file)),
        imatrix=Path(plan.imatrix.file) if plan.imatrix else None,
        allow_requantize=requantizes(plan, file.header),
        realign=_realigned(file),
    )
    command = command_line([TOOL, *recipe.options(), source, file.name, plan.base_ftype])
    parts.append(block("\n".join([*_solving(plan), command]), "sh"))
    if note := rules_note(len(plan.compensated)):
        parts.append(f"{note[0].upper()}{note[1:]}.")
    if plan.layer_types:
        parts.append(_maybe_folded("LAYER_TYPES and FLAGS", layer_types_text(plan)))
    parts.append(_maybe_folded(f"Rules for --tensor-type-file, {rules_name(file)}", rules_text(file) or ""))
    return "\n\n".join(parts)


def _realigned(file: PublishedFile) -> bool:
    """Whether its model may have had another alignment: only then a built file names its own."""
    return "general.alignment" in file.header.metadata


def _as_argument(name: str) -> str:
    """The name of a file, so that no program takes it for an option."""
    return f"./{name}" if name.startswith("-") else name


def _stock(file: PublishedFile) -> str:
    """A stock quant, and the command that makes it."""
    used = file.header.metadata.get("quantize.imatrix.file")
    recipe = Recipe(file.stock_quant, imatrix=Path(str(used)) if used else None, realign=_realigned(file))
    command = command_line([TOOL, *recipe.options(), _as_argument(file.made_of), file.name, file.stock_quant])
    made = f"The stock quant {code(file.stock_quant)} of llama.cpp, {'with' if used else 'without'} an imatrix."
    return f"{made}\n\n{block(command, 'sh')}"


def _maybe_folded(summary: str, text: str) -> str:
    if len(text.splitlines()) > SHORT:
        return folded(summary, block(text, "text"))
    return f"{escaped(summary)}:\n\n{block(text, 'text')}"


def _solving(plan: Plan) -> list[str]:
    """The command that solved for the plan, without private folders."""
    command = plan.made_from.get("command")
    if not isinstance(command, str) or not command:
        return []
    return [shlex.join(_public(word) for word in shlex.split(command))]


def _public(word: str) -> str:
    """A path that starts at the root is its last part: its folder tells about a machine, not about the plan."""
    head, equals, tail = word.rpartition("=")
    return f"{head}{equals}{Path(tail).name}" if tail.startswith(("/", "~")) else word


def _chosen(plan: Plan) -> str:
    status, gap = plan.outcome.status, plan.outcome.gap
    if status == "given":
        words = ["Its types were given, not solved for."]
    else:
        proven = "proven optimal" if status == "optimal" else f"within {gap:.2%} of the optimum" if gap else status
        words = [
            f"Chosen by integer programming, {proven}.",
            _measured(plan) if plan.calibrated else "Sensitivities were not measured: scales are a prior.",
        ]
    if plan.predicted_kld is not None and plan.calibrated:
        error = f" ± {plan.predicted_kld_err:.2g}" if plan.predicted_kld_err is not None else ""
        words.append(f"Expected KLD {plan.predicted_kld:.3g}{error}.")
    if plan.compensated:
        words.append(f"Rounding {plan_rounding(plan)}.")
    words.append(_imatrix(plan))
    text, ctx = plan.made_from.get("calibration"), plan.made_from.get("ctx")
    if isinstance(text, str) and text:
        words.append(f"Calibration text {code(text[:12])}, chunks of {ctx} tokens.")
    return " ".join(words)


def _measured(plan: Plan) -> str:
    """Where: on the model itself, or on a sibling."""
    noted = plan.made_from.get("sibling")
    if not isinstance(noted, dict):
        return "Sensitivities were measured by probing."
    words = f"Sensitivities were measured on {code(str(noted.get('model')))}, a model with the same names and shapes"
    check = noted.get("check")
    if not isinstance(check, dict):
        return f"{words}, and not checked on this one."
    count, correlation = len(check.get("tensors", ())), check.get("correlation")
    agree = f" (correlation of log KLD {correlation:.2f})" if isinstance(correlation, float) else ""
    return f"{words}, and checked on this one by probing {count} tensors{agree}."


def tables(data: CardData, repo: str | None) -> str:
    """The sensitivity tables next to the files, and how they serve another budget or a fine-tune; empty without any."""
    if not data.tables:
        return ""
    names = [table.name for table in data.tables]
    where = f"hf://{repo}/{names[0]}" if repo else names[0]
    command = shlex.join(["quantplan", "solve", "--model", "MODEL.gguf", "--sensitivity", where, "--budget", "5bpw"])
    return (
        f"{', '.join(map(code, names))}: the expected KLD of each tensor at each type. With it another size, or a fine-tune of "
        f"this model (same names and shapes; some tensors are probed to check it), needs no probe:\n\n{block(command, 'sh')}"
    )


def _imatrix(plan: Plan) -> str:
    used = plan.imatrix
    if used is None:
        return "No imatrix."
    of = f" of {code(used.dataset)}" if used.dataset else ""
    chunks = f", {used.chunks} chunks{of}" if used.chunks > 0 else of
    return f"Imatrix {code(used.file)}: {used.entries} tensors{chunks}."


def tools(data: CardData) -> str:
    """The builds that planned, and which files do not exist yet; empty without a plan."""
    plans = [file.plan for file in data.files if file.plan]
    if not plans:
        return ""
    builds = {str(plan.made_from["llama_cpp"]) for plan in plans if "llama_cpp" in plan.made_from}
    made = f" with llama.cpp {escaped(', '.join(sorted(builds)))}" if builds else ""
    unbuilt = [code(file.name) for file in data.files if file.plan and file.digest is None]
    words = f"Planned{made}; quantplan builds each file, reads it back, and checks every type and the size."
    return words + (f" Not built yet: {', '.join(unbuilt)}." if unbuilt else "")
