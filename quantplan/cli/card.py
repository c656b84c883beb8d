"""`quantplan card`: the README.md of a model on a hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.memory import ContextsOption, parse_contexts
from quantplan.errors import BadUsage

if TYPE_CHECKING:
    from quantplan.report.card import Identity
    from quantplan.report.card_data import CardData, PublishedFile
    from quantplan.surgery.history import History

_WhatArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Plans (.json) or GGUF files, hf:// too (default: the project's plans).", show_default=False),
]
_OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder to write (default: the project's reports/card, or card).")
]
_ReportsOption = Annotated[
    Path | None, typer.Option("--reports", help="Folder with records of measure and compare (default: the project's).")
]
_RepoOption = Annotated[
    str | None, typer.Option("--repo", metavar="OWNER/REPO", help="Where the files will be published.")
]
_BaseOption = Annotated[
    str | None, typer.Option("--base-model", metavar="OWNER/REPO", help="The model that was quantized.")
]
_LicenseOption = Annotated[
    str | None, typer.Option("--license", help="The model's license (default: what the GGUF says).")
]
_AuthorOption = Annotated[str | None, typer.Option("--quantized-by", help="Who made the files.")]


def card(
    what: _WhatArgument = None,
    model: options.ModelOption = None,
    hub: options.HubOption = None,
    repo: _RepoOption = None,
    base_model: _BaseOption = None,
    license: _LicenseOption = None,
    quantized_by: _AuthorOption = None,
    reports: _ReportsOption = None,
    ctx: ContextsOption = "4096,16384,32768",
    out: _OutOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a card that is there.")] = False,
    dry_run: options.DryRunOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Write a model card: README.md with files, results, memory, commands and rules, and a Modelfile for Ollama.

    Every figure comes from a plan, a file's header, llama.cpp, or a record of `quantplan measure` or `compare` that
    belongs to the very file (by its digest). What was not measured is said not to be.

    Example, in a project: quantplan card plans/prose-10m-q4_k_m.json --repo me/prose-10m-GGUF --out my-card
    """
    from quantplan.report.card import Identity
    from quantplan.report.card_data import card_data, with_memory

    identity = Identity(repository(repo, "--repo"), repository(base_model, "--base-model"), license, quantized_by)
    contexts = parse_contexts(ctx)
    folder = out or _default_folder()
    if (folder / "README.md").exists() and not force and not dry_run:
        raise BadUsage(f"{folder / 'README.md'} exists already; --force writes it anew, --out another")
    records = _records(reports)
    found = card_data(_files(what, options.local_or_hub(model, hub)), records)
    history = _history(found, records)
    for name in found.left_out:
        if history and name in history.records:
            continue
        console.warn(f"{name} is of a file that is not among these (or was built anew since): left out")
    if dry_run:
        console.say("would write:")
        _print(found, _names(found), folder, as_json)
        return
    found = card_data([with_memory(each, contexts) for each in found.files], records)
    _write(found, identity, folder, history)
    _print(found, _names(found), folder, as_json)


def repository(repo: str | None, option: str) -> str | None:
    """BadUsage for what is no ``owner/repo``."""
    import re

    if repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII):
        raise BadUsage(f"{option} {repo}: write OWNER/REPO")
    return repo


def _default_folder() -> Path:
    here = options.project()
    return here.reports / "card" if here else Path("card")


def _records(option: Path | None) -> list[Path]:
    here = options.project()
    folder = option or (here.reports if here else None)
    if option is not None and not option.is_dir():
        raise BadUsage(f"--reports {option}: no such folder")
    return sorted(folder.glob("*.json")) if folder and folder.is_dir() else []


def _files(what: Sequence[Path] | None, model: Path | None) -> list[PublishedFile]:
    """The files that are meant; BadUsage where there are none."""
    here = options.project()
    plans = sorted(here.plans.glob("*.json")) if here else []
    wanted = [options.local(each) for each in what or ()] or plans
    if not wanted:
        raise BadUsage("a card of what? name plans or GGUF files, or plan in a project with `quantplan solve`")
    return [_plan(each, model) if each.suffix == ".json" else _gguf(each, plans, model) for each in wanted]


def _plan(path: Path, option: Path | None, gguf: Path | None = None) -> PublishedFile:
    """What a plan describes; ``gguf``: the file that it is, else looked for where quantize and compare put it."""
    from quantplan.cli.plan_output import model_stem, with_stem
    from quantplan.records.formats import PLANS
    from quantplan.report.card_data import places_of, published_plan

    named = Path(PLANS.read(path).model_path)
    source = options.model(option or (named if named.is_file() else None))
    name = gguf.name if gguf else f"{with_stem(model_stem(source), path.stem)}.gguf"
    here = options.project()
    folders = [here.folder, here.reports / "builds"] if here else [Path(), path.parent]
    found = published_plan(path, source, name, [gguf] if gguf else places_of(path, name, folders))
    if found.digest is None:
        console.warn(
            f"{name} is not built: nothing that was measured can be its; `quantplan quantize {path}` builds it"
        )
    return found


def _gguf(path: Path, plans: Sequence[Path], option: Path | None) -> PublishedFile:
    """A GGUF, with its plan where the project has that."""
    from quantplan.report.card_data import plan_of, published_gguf

    plan = plan_of(path, plans)
    return _plan(plan, option, path) if plan else _named(published_gguf(path), option)


def _named(file: PublishedFile, option: Path | None) -> PublishedFile:
    """The file with its mix, where the model that it was made of is known."""
    from quantplan.report.card_data import with_stock_quant

    here = options.project()
    if option is None and here is None:
        return file
    source = options.model(option)
    return with_stock_quant(file, source, options.imatrix(None, source))


def _metadata(found: CardData) -> dict[str, object]:
    """Of the header, arrays of strings included."""
    from quantplan.gguf.reader import read_container

    return read_container(found.main.header.path)[0]


def _names(found: CardData) -> Sequence[str]:
    from quantplan.report.card import rules_name

    return ["README.md", "Modelfile", *(rules_name(each) for each in found.files if each.plan)]


def _write(found: CardData, identity: Identity, folder: Path, history: History | None) -> None:
    from quantplan.records.files import replacing

    for name, text in _texts(found, identity, history).items():
        with replacing(folder / name) as file:
            file.write(text)


def _texts(found: CardData, identity: Identity, history: History | None) -> Mapping[str, str]:
    """File name -> content, in the order of ``_names``."""
    from quantplan.report.card import ancestors, base_models, card_text, rules_text
    from quantplan.report.modelfile import modelfile_text

    metadata = _metadata(found)
    if not base_models(identity, metadata):
        console.say("the GGUF does not say which model it is: --base-model OWNER/REPO puts it into the card")
    elif base_models(identity, metadata) == ancestors(metadata):
        named = ", ".join(ancestors(metadata))
        console.warn(
            f"the GGUF names {named} as what its model was made from; if it is not the model itself, give --base-model"
        )
    others = [each.name for each in found.files if each is not found.main]
    texts = [card_text(found, identity, metadata, history), modelfile_text(found.main.name, metadata, others)]
    texts += [text for each in found.files if (text := rules_text(each)) is not None]
    return dict(zip(_names(found), texts, strict=True))


def _history(found: CardData, records: Sequence[Path]) -> History | None:
    """Of the model that the files were made of."""
    from quantplan.surgery.history import read_history

    here = options.project()
    planned = next((each.header for each in found.files if each.plan), None)
    source = planned or (options.model(None) if here else found.main.header)
    return read_history(source, records)


def _print(found: CardData, names: Sequence[str], folder: Path, as_json: bool) -> None:
    if not as_json:
        for name in names:
            console.put(str(folder / name))
        return
    from quantplan.records.formats import MEASUREMENTS
    from quantplan.report.memory_table import memory_fields

    files = [
        {
            "name": each.name,
            "file_bytes": each.file_bytes,
            "bpw": each.bpw,
            "digest": each.digest,
            "types": each.by_type,
            "measured": [MEASUREMENTS.encode(one) for one in found.measured.get(each.name, ())],
            "memory": [memory_fields(use) for use in each.memory],
        }
        for each in found.files
    ]
    console.put_json({"folder": str(folder), "written": list(names), "files": files, "left_out": list(found.left_out)})
