"""`quantplan card`: the README.md of a model on a hub."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from quantplan.cli import console, options
from quantplan.cli.bench_options import BenchOptions
from quantplan.cli.card_options import CARD, IdentityOptions, ModelfileOptions, PublisherOptions
from quantplan.cli.card_speeds import measured_speeds
from quantplan.cli.framework import OutputOptions, command, force_option, option, out_option
from quantplan.cli.memory import contexts_option, parse_contexts
from quantplan.cli.option_groups import ModelOptions, ToolOptions
from quantplan.cli.plan_output import model_stem, with_stem
from quantplan.errors import BadUsage, ToolFailed, ToolMissing
from quantplan.evaluate.published_files import (
    PublishedFile,
    places_of,
    plan_of,
    published_gguf,
    published_plan,
    with_memory,
    with_stock_quant,
)
from quantplan.evaluate.published_tables import published_tables
from quantplan.gguf.reader import number_arrays, read_container
from quantplan.llamacpp.chat_abilities import chat_abilities
from quantplan.records.files import replacing
from quantplan.records.formats import MEASUREMENTS, PLANS, SENSITIVITY_TABLES, THROUGHPUTS
from quantplan.report.card import card_text
from quantplan.report.card_data import CardData, card_data
from quantplan.report.card_origin import Identity, ancestors, base_models
from quantplan.report.card_provenance import rules_name, rules_text
from quantplan.report.memory_table import memory_fields
from quantplan.report.modelfile import modelfile_text
from quantplan.report.modelfile_settings import ModelfileSettings
from quantplan.report.rounding import rounding_fields
from quantplan.surgery.history import History, read_history


@command
def card(
    model: ModelOptions,
    identity: IdentityOptions,
    publishers: PublisherOptions,
    modelfile: ModelfileOptions,
    bench: BenchOptions,
    execution: ToolOptions,
    output: OutputOptions,
    what: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Plans (.json) or GGUF files, hf:// too (default: the project's plans).", show_default=False
        ),
    ] = None,
    quantized_by: str | None = option("Who made the files.", panel=CARD),
    reports: Path | None = option("Folder with records of measure and compare (default: the project's).", panel=CARD),
    serve_ctx: tuple[str, ...] = contexts_option(),
    out: Path | None = out_option("Folder to write (default: the project's reports/card, or card)."),
    force: bool = force_option(),
) -> None:
    """Write a model card: README.md with files, results, memory, commands and rules, and a Modelfile for Ollama.

    The sensitivity table that the plans were made from is put next to it, for other sizes and for fine-tunes of the model.

    Every figure comes from a plan, a file's header, llama.cpp, or a record of `quantplan measure` or `compare` that
    belongs to this very file (by its digest). What was not measured is named as not measured. Speeds are measured here and
    now with --speed, -p, --n-gen or -pg.

    Example, in a project: quantplan card plans/prose-10m-q4_k_m.json --repo me/prose-10m-GGUF --out my-card
    """
    identity.check()
    settings = modelfile.settings
    who = Identity(identity.repo, identity.base_model, identity.license, quantized_by)
    contexts = parse_contexts(serve_ctx)
    folder = out or (options.folder(None, "reports/card") if options.project() else Path("card"))
    options.check_new(folder / "README.md", force or output.dry_run)
    records = _records(reports)
    tests = bench.tests
    files = _files(what, model.file)
    others = publishers.files(files[0].header)
    data = _with_tables(card_data(files, records, others=others))
    history = _history(data, records)
    for name in data.left_out:
        if not (history and name in history.records):
            console.warn(f"{name} is of a file that is not among these (or was built again since): left out")
    if output.dry_run:
        if tests:
            console.say(f"would measure with llama-bench: {', '.join(tests.names)}")
        console.say("would write:")
    else:
        speeds = measured_speeds(data.files, bench, execution.parsed(), reports)
        data = replace(card_data(_with_memory(data.files, contexts), records, speeds, others), tables=data.tables)
        _write(data, who, settings, folder, history)
    _print(data, _names(data), folder, output.as_json)


def _with_tables(data: CardData) -> CardData:
    """With the sensitivity tables that the plans were made from, as far as the cache has them."""
    tables, missing = published_tables(data.files, options.cache_folder())
    for reason in missing:
        console.say(f"no sensitivity table next to the card: {reason}")
    return replace(data, tables=tables)


def _with_memory(files: Sequence[PublishedFile], contexts: Sequence[int]) -> Sequence[PublishedFile]:
    """A card can do without what the files take in memory."""
    try:
        return [with_memory(file, contexts) for file in files]
    except (ToolMissing, ToolFailed) as error:
        console.warn(f"no memory figures in the card: {error}")
        return files


def _records(option: Path | None) -> list[Path]:
    if option is not None and not option.is_dir():
        raise BadUsage(f"--reports {option}: no such folder")
    folder = options.records_folder(option)
    return sorted(folder.glob("*.json")) if folder and folder.is_dir() else []


def _files(what: Sequence[Path] | None, model: Path | None) -> list[PublishedFile]:
    """The files named, else the project's plans; BadUsage without any."""
    here = options.project()
    plans = sorted(here.plans.glob("*.json")) if here else []
    paths = [options.local(path) for path in what or ()] or plans
    if not paths:
        raise BadUsage("a card of what? name plans or GGUF files, or plan in a project with `quantplan solve`")
    return [_plan(path, model) if path.suffix == ".json" else _gguf(path, plans, model) for path in paths]


def _plan(path: Path, option: Path | None, gguf: Path | None = None) -> PublishedFile:
    """What a plan describes; ``gguf``: the file that it is, else looked for where quantize and compare put it."""
    source = options.model(option, PLANS.read(path))
    name = gguf.name if gguf else f"{with_stem(model_stem(source), path.stem)}.gguf"
    here = options.project()
    folders = [here.folder, here.reports / "builds"] if here else [Path(), path.parent]
    file = published_plan(path, source, name, [gguf] if gguf else places_of(path, name, folders))
    if file.digest is None:
        console.warn(f"{name} is not built, so no measurement belongs to it; `quantplan quantize {path}` builds it")
    return file


def _gguf(path: Path, plans: Sequence[Path], option: Path | None) -> PublishedFile:
    """A GGUF, with its plan where the project has that."""
    plan = plan_of(path, plans)
    return _plan(plan, option, path) if plan else _named(published_gguf(path), option)


def _named(file: PublishedFile, option: Path | None) -> PublishedFile:
    """The file with its stock quant, where the model that it was made of is known."""
    if option is None and options.project() is None:
        return file
    source = options.model(option)
    return with_stock_quant(file, source, options.imatrix(None, source))


def _metadata(data: CardData) -> dict[str, object]:
    """Of the header, arrays included."""
    path = data.main.header.path
    return {**number_arrays(path), **read_container(path)[0]}


def _names(data: CardData) -> Sequence[str]:
    rules = [rules_name(file) for file in data.files if file.plan]
    return ["README.md", "Modelfile", *rules, *(table.name for table in data.tables)]


def _write(
    data: CardData, identity: Identity, settings: ModelfileSettings, folder: Path, history: History | None
) -> None:
    for name, text in _texts(data, identity, settings, history).items():
        with replacing(folder / name) as file:
            file.write(text)
    for published in data.tables:
        SENSITIVITY_TABLES.write(published.table, folder / published.name)


def _texts(
    data: CardData, identity: Identity, settings: ModelfileSettings, history: History | None
) -> Mapping[str, str]:
    """File name -> content, in the order of ``_names``, but for the tables."""
    metadata = _metadata(data)
    if not base_models(identity, metadata):
        console.say("the GGUF does not say which model it is: --base-model OWNER/REPO puts it into the card")
    elif base_models(identity, metadata) == ancestors(metadata):
        named = ", ".join(ancestors(metadata))
        console.warn(
            f"the GGUF names {named} as what its model was made from; if it is not the model itself, give --base-model"
        )
    abilities = chat_abilities(metadata)
    if settings.system and abilities and not abilities.system:
        console.warn(
            "the chat template takes no system message: the SYSTEM of the Modelfile has no effect, or is refused"
        )
    others = [file.name for file in data.files if file is not data.main]
    texts = [card_text(data, identity, metadata, history), modelfile_text(data.main.name, metadata, others, settings)]
    texts += [text for file in data.files if (text := rules_text(file)) is not None]
    return dict(zip(_names(data), texts, strict=False))


def _history(data: CardData, records: Sequence[Path]) -> History | None:
    """Of the model that the files were made of."""
    planned = next((file.header for file in data.files if file.plan), None)
    source = planned or (options.model(None) if options.project() else data.main.header)
    return read_history(source, records)


def _print(data: CardData, names: Sequence[str], folder: Path, as_json: bool) -> None:
    if not as_json:
        for name in names:
            console.put(str(folder / name))
        return
    files = [
        {
            "name": file.name,
            "file_bytes": file.file_bytes,
            "bpw": file.bpw,
            "digest": file.digest,
            "types": file.by_type,
            "rounding": rounding_fields(file.plan) if file.plan else None,
            "measured": [MEASUREMENTS.encode(measured) for measured in data.measured.get(file.name, ())],
            "speed": [THROUGHPUTS.encode(speeds) for speeds in data.speeds.get(file.name, ())],
            "memory": [memory_fields(use) for use in file.memory],
        }
        for file in data.files
    ]
    others = [
        {name: getattr(other, name) for name in ("publisher", "name", "quant", "file_bytes", "digest")}
        | {"measured": [MEASUREMENTS.encode(measured) for measured in other.measured]}
        for other in data.others
    ]
    fields = {"folder": str(folder), "written": list(names), "files": files, "others": others}
    console.put_json({**fields, "left_out": list(data.left_out)})
