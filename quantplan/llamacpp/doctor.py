"""Looking over the installation: libraries, tools, build, and whether the tools do what quantplan relies on."""

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from quantplan.errors import QuantplanError, ToolFailed
from quantplan.execution import cores
from quantplan.llamacpp import ggml, libraries, quantize, tools
from quantplan.llamacpp.quantize import Recipe, Rule
from quantplan.quant_type import BY_ID, BY_NAME

PACKAGES = (
    "llama-cpp-python",
    "numpy",
    "scipy",
    "pulp",
    "highspy",
    "distributed",
    "matplotlib",
    "typer",
    "rich",
    "gguf",
)
_KERNELS = "kernels for quantized weights"


@dataclass(frozen=True)
class DoctorCheck:
    """``state``: "ok", "warning" or "missing"; ``mend``: what to do, empty where nothing needs doing."""

    what: str
    state: str
    detail: str
    mend: str = ""


def doctor_checks() -> list[DoctorCheck]:
    """All findings; never raises for something that is merely missing."""
    checks = [
        DoctorCheck(
            "Python",
            "ok",
            f"{platform.python_version()} on {platform.system()} {platform.machine()}, {cores()} cores",
        )
    ]
    checks += [_package(name) for name in PACKAGES]
    checks += [_tried("ggml library", _types)]
    checks += [_tool(name) for name in tools.REQUIRED]
    if all(finding.state != "missing" for finding in checks):
        checks += [_tried("llama.cpp build", _build), _tried("rules of llama-quantize", _rules)]
        checks += [_tried(_KERNELS, kernels_check)]
    return checks


def _package(name: str) -> DoctorCheck:
    try:
        return DoctorCheck(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        mend = f"run: {libraries.INSTALL_HINT}" if name == "llama-cpp-python" else f"run: pip install {name}"
        return DoctorCheck(name, "missing", "not installed", mend)


def _tool(name: str) -> DoctorCheck:
    try:
        return DoctorCheck(name, "ok", str(tools.find(name)))
    except QuantplanError as error:
        return DoctorCheck(name, "missing", f"not in {tools.bin_folder()}", str(error))


def _tried(what: str, look: Callable[[], DoctorCheck]) -> DoctorCheck:
    try:
        return look()
    except QuantplanError as error:
        return DoctorCheck(what, "missing", "cannot be used", str(error))


def _types() -> DoctorCheck:
    """The table of types against the installed library's."""
    known = [kind for kind in BY_ID.values() if ggml.installed_name(kind.ggml_id) is not None]
    wrong = [kind.name for kind in known if ggml.installed_block(kind.ggml_id) != (kind.block, kind.block_bytes)]
    if wrong:
        return DoctorCheck(
            "ggml library",
            "warning",
            f"other block sizes of {', '.join(wrong)}",
            "update quantplan, or llama-cpp-python",
        )
    return DoctorCheck("ggml library", "ok", f"{len(known)} types, in {libraries.library_folder()}")


def _build() -> DoctorCheck:
    return DoctorCheck("llama.cpp build", "ok", tools.build())


def _rules() -> DoctorCheck:
    """Known bad builds are told by what they do, not by their number: three rules in a dry run on the bundled model.

    Between llama.cpp PRs 19770 and 22572 (spring 2026) a rule equal to the ftype's default type was ignored and the ftype's
    own choice taken; in mid-2025 the last hit won, not the first.
    """
    model = _bundled()
    q2, q4, q6 = BY_NAME["Q2_K"], BY_NAME["Q4_K"], BY_NAME["Q6_K"]
    rules = (
        Rule(r"^blk\.0\.ffn_down\.weight$", q4),
        Rule(r"^blk\.1\.ffn_down\.weight$", q6),
        Rule(r"blk\.1\.ffn_down", q2),
    )
    types = quantize.dry_run(model, "Q4_K_M", rules=rules)
    what = "rules of llama-quantize"
    if types["blk.0.ffn_down.weight"] != q4:
        mend = "update llama-cpp-python; until then a plan may fail its read-back check"
        return DoctorCheck(what, "warning", "bad build: a rule equal to the default type is ignored", mend)
    order = {q6: "the first hit wins", q2: "the last hit wins"}.get(types["blk.1.ffn_down.weight"])
    if order is None:
        return DoctorCheck(
            what,
            "warning",
            "bad build: rules are ignored",
            "update llama-cpp-python; plans cannot be built with this one",
        )
    return DoctorCheck(what, "ok", f"{order}; quantplan's rules are disjoint and hold either way")


def kernels_check() -> DoctorCheck:
    """The bundled model in Q8_0, run: builds whose kernels crash on this processor look sound until then."""
    with tempfile.TemporaryDirectory(prefix="quantplan-") as folder:
        file = Path(folder) / "q8_0.gguf"
        quantize.quantize(_bundled(), Recipe("Q8_0"), file)
        try:
            tools.run(["llama-bench", "-m", str(file), "-p", "16", "-n", "1", "-r", "1", "-t", "2"])
        except ToolFailed:
            mend = f"llama.cpp was built for another processor, or its AMX kernels crash; run: {libraries.INSTALL_HINT}"
            return DoctorCheck(_KERNELS, "missing", "llama-bench dies on a model in Q8_0", mend)
    return DoctorCheck(_KERNELS, "ok", "a model in Q8_0 runs")


def _bundled() -> Path:
    return Path(str(files("quantplan") / "data" / "prose-10m-f16.gguf"))
