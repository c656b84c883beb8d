"""Option groups that commands share."""

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from quantplan.budget import parse_size
from quantplan.cli.framework import option
from quantplan.cli.options import TextReader, calibration_files, local_or_hub
from quantplan.errors import BadUsage
from quantplan.execution import Execution, parse_execution
from quantplan.tensor import Model
from quantplan.text import Text

TARGET, TEXTS, TYPES = "Target", "Model and texts", "Types and constraints"
MEMORY, MEASURING, EXECUTION = "Memory and speed", "Measuring", "Execution"


def hub_option() -> Any:
    return option(
        "A model on Hugging Face, as in llama.cpp.", "--hf-repo", "-hf", panel=TEXTS, metavar="OWNER/REPO[:QUANT]"
    )


@dataclass(frozen=True)
class HubOptions:
    """For commands whose model is an argument."""

    hub: str | None = hub_option()


@dataclass(frozen=True)
class ModelOptions:
    panel: ClassVar[str] = TEXTS
    model: Path | None = option("GGUF model or hf://owner/repo/file (default: the project's).", "-m")
    hub: str | None = hub_option()

    @property
    def file(self) -> Path | None:
        """The model that the options name, downloaded if need be; None where they name none."""
        return local_or_hub(self.model, self.hub)


@dataclass(frozen=True)
class ImatrixOptions:
    panel: ClassVar[str] = TEXTS
    imatrix: Path | None = option("Importance matrix (default: the project's).")


@dataclass(frozen=True)
class SpecialTokenOptions:
    """How plain texts are read."""

    panel: ClassVar[str] = TEXTS
    parse_special: bool = option(
        "Parse special tokens such as <|im_start|> in plain texts; in chats (.jsonl) they always are.", default=False
    )

    def reader(self, model: Model) -> TextReader:
        return TextReader(model, self.parse_special)


@dataclass(frozen=True)
class CalibrationOptions(SpecialTokenOptions):
    panel: ClassVar[str] = TEXTS
    calibration: tuple[Path, ...] = option(
        "Calibration text: files (.jsonl for chats), folders, or default for a small one; repeatable (default: the project's).",
        default=(),
    )

    def text(self, model: Model) -> Text | None:
        """The text as the model reads it."""
        files = calibration_files(self.calibration)
        return self.reader(model).text(files) if files else None

    def required(self, model: Model) -> Text:
        """The text; BadUsage without one."""
        if (text := self.text(model)) is None:
            raise BadUsage(
                "no calibration text: give --calibration FILE, some hundred kB of the kind that the model is for (or "
                "--calibration default, quantplan's own small texts)"
            )
        return text


@dataclass(frozen=True)
class InputTextOptions(CalibrationOptions):
    """For commands that read no other text: -f is llama.cpp's name for that."""

    panel: ClassVar[str] = TEXTS
    calibration: tuple[Path, ...] = option(
        "Calibration text: files (.jsonl for chats), folders, or default for a small one; repeatable (default: the project's).",
        "--calibration",
        "-f",
        "--file",
        default=(),
    )


@dataclass(frozen=True)
class TextOptions:
    panel: ClassVar[str] = TEXTS
    text: tuple[Path, ...] = option(
        "Evaluation text: files (.jsonl for chats), folders, or default for a small one; repeatable (default: the project's).",
        "-f",
        default=(),
    )


@dataclass(frozen=True)
class ChunkOptions:
    panel: ClassVar[str] = MEASURING
    ctx: int | None = option("Tokens of a chunk of text (default: the project's, or 512).", "-c", min=8)


@dataclass(frozen=True)
class EvaluationOptions(ChunkOptions):
    panel: ClassVar[str] = MEASURING
    eval_chunks: int | None = option("Chunks of the evaluation text to use (default: all).", "--chunks", min=1)


@dataclass(frozen=True)
class ThreadOptions:
    panel: ClassVar[str] = EXECUTION
    threads: int = option("CPU threads; 0: all cores.", "-t", default=0, min=0)


@dataclass(frozen=True)
class ToolOptions(ThreadOptions):
    """For commands whose work is done by llama.cpp's own tools on this machine."""

    panel: ClassVar[str] = EXECUTION
    gpu_layers: int = option("Layers to offload to the GPU.", "-ngl", default=0)

    def parsed(self) -> Execution:
        return Execution(self.threads, self.gpu_layers)


@dataclass(frozen=True)
class ExecutionOptions(ToolOptions):
    panel: ClassVar[str] = EXECUTION
    jobs: int = option(
        "Worker processes here; each loads the model and gets a share of the cores.", "-j", default=1, min=1
    )
    scheduler: str | None = option("Dask scheduler whose workers do the work: tcp://host:8786.")
    rpc: str | None = option("llama.cpp RPC servers that hold the model, as for llama-server.", metavar="HOST:PORT,...")

    def parsed(self, by_tool: str = "") -> Execution:
        """BadUsage with ``by_tool``, options that start llama.cpp's own tools, for machines other than this one."""
        if by_tool and (self.jobs > 1 or self.scheduler or self.rpc):
            raise BadUsage(f"{by_tool}: llama.cpp's tools run on this machine; leave --jobs, --scheduler and --rpc out")
        return parse_execution(self.threads, self.gpu_layers, self.jobs, self.scheduler, self.rpc)


def memory_option() -> Any:
    return option(
        "RAM for the second moments of compensated rounding: 8GiB (default: half of what is free).",
        "--memory",
        panel=EXECUTION,
    )


def memory_bytes(text: str | None) -> int:
    """``Execution.memory`` of --memory."""
    return parse_size(text, "--memory") if text else 0


@dataclass(frozen=True)
class MomentExecutionOptions(ExecutionOptions):
    """For commands that collect second moments."""

    panel: ClassVar[str] = EXECUTION
    memory: str | None = memory_option()

    def parsed(self, by_tool: str = "") -> Execution:
        return replace(super().parsed(by_tool), memory=memory_bytes(self.memory))


def sensitivity_file_option() -> Any:
    return option("Sensitivity table, hf:// too (default: the plan's).", panel=TEXTS, metavar="FILE")


def repetitions_option() -> Any:
    return option("Repetitions of llama-bench.", "-r", default=5, panel=MEASURING, min=1)


@dataclass(frozen=True)
class TypesOptions:
    panel: ClassVar[str] = TYPES
    types: str = option(
        "Types to choose from: names and the sets k, iq, legacy, all, any (all that can be written); -NAME removes one.",
        default="all",
    )


class TableFormat(str, Enum):
    """How a result is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"
    html = "html"


class ShortFormat(str, Enum):
    """The same, where nobody pastes the result into a page."""

    table = "table"
    json = "json"
    csv = "csv"
