"""Options of `quantplan card` that `surgery publish` takes too: whose model it is, and what the Modelfile says."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from quantplan.cli.framework import option, whole
from quantplan.cli.plan_options import split_assignments
from quantplan.errors import BadUsage
from quantplan.evaluate.other_publishers import OtherFile, other_files
from quantplan.report.modelfile_settings import ModelfileSettings, modelfile_settings
from quantplan.tensor import Model

CARD = "Card"  # panel


@dataclass(frozen=True)
class IdentityOptions:
    panel: ClassVar[str] = CARD
    repo: str | None = option("Where the files will be published.", metavar="OWNER/REPO")
    base_model: str | None = option("The original model on Hugging Face.", metavar="OWNER/REPO")
    license: str | None = option("The model's license (default: what the GGUF says).")

    def check(self) -> None:
        """BadUsage for what is not ``owner/repo``."""
        for name, repo in (("--repo", self.repo), ("--base-model", self.base_model)):
            if repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
                raise BadUsage(f"{name} {repo}: write OWNER/REPO")

    @property
    def words(self) -> tuple[str, ...]:
        """The options as they are typed, checked."""
        self.check()
        pairs = (("--repo", self.repo), ("--base-model", self.base_model), ("--license", self.license))
        return tuple(word for option, value in pairs if value for word in (option, value))


@dataclass(frozen=True)
class PublisherOptions:
    panel: ClassVar[str] = CARD
    publisher: tuple[str, ...] = option(
        "Another publisher's files of the model, for the table of sizes: a GGUF, a folder, a record of measure, or "
        "hf://owner/repo (nothing is downloaded); repeatable.",
        default=(),
        split=split_assignments,
        metavar="NAME=WHERE",
    )

    def files(self, own: Model) -> list[OtherFile]:
        """Of the model ``own``. Raises BadUsage, and as ``other_files``."""
        files = []
        for word in self.publisher:
            name, equals, where = (part.strip() for part in word.partition("="))
            if not equals or not name or not where:
                raise BadUsage(f"--publisher {word}: write NAME=WHERE, as in --publisher bartowski=hf://owner/repo")
            for place in [where] if Path(where).exists() else where.split(","):
                files += other_files(name, place, own)
        return files


@dataclass(frozen=True)
class ModelfileOptions:
    panel: ClassVar[str] = CARD
    system: str | None = option("System prompt of the Modelfile.")
    parameter: tuple[str, ...] = option(
        "A parameter of the Modelfile, as temperature=0.6; repeatable.", default=(), split=whole, metavar="NAME=VALUE"
    )

    @property
    def settings(self) -> ModelfileSettings:
        """BadUsage for what a Modelfile cannot say."""
        return modelfile_settings(self.system, self.parameter)

    @property
    def words(self) -> tuple[str, ...]:
        """The options as they are typed, checked."""
        system = ("--system", self.system) if self.settings.system else ()
        return (*system, *(word for value in self.parameter for word in ("--parameter", value)))
