"""The README.md of a model on a hub, from what is known of its files. What was not measured is said not to be."""

import re
from collections.abc import Mapping, Sequence

from quantplan import __version__
from quantplan.llamacpp.chat_abilities import chat_abilities
from quantplan.report import card_files, card_model, card_origin, card_provenance, card_sizes, card_surgery, card_use
from quantplan.report.card_data import CardData
from quantplan.report.card_origin import Identity
from quantplan.report.card_results import results
from quantplan.report.markdown import code, escaped
from quantplan.surgery.history import History


def card_text(
    data: CardData, identity: Identity, metadata: Mapping[str, object], history: History | None = None
) -> str:
    """The card. ``metadata``: of the GGUF, arrays of strings included; ``history``: of a model with layer surgery.

    BadUsage where the plan's rules cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("quantplan", "report/templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown: what needs it is escaped by report.markdown
    )
    base, abilities = card_origin.base_models(identity, metadata), chat_abilities(metadata)
    text = templates.get_template("card.md").render(
        front_matter=card_origin.front_matter(data, identity, metadata, surgery=history is not None),
        title=escaped(f"{data.main.header.name} GGUF"),
        intro=_intro(data, base, history),
        files=card_files.files_table(data),
        file_notes=card_files.notes(data),
        sizes=card_sizes.sizes(data),
        details=card_model.details(data.main, metadata),
        features=card_model.features(metadata, abilities),
        surgery=card_surgery.surgery(data, history) if history else "",
        results=results(data),
        memory=card_files.memory(data),
        llama_cpp=card_use.llama_cpp(data, identity.repo),
        llama_cpp_python=card_use.llama_cpp_python(data, identity.repo, metadata),
        ollama=card_use.ollama(data, identity.repo),
        thinking=card_use.thinking(data, identity.repo, abilities),
        tools=card_use.tools(data, identity.repo, abilities),
        made=[
            *map(card_provenance.made, reversed(data.files)),
            card_provenance.tables(data, identity.repo),
            card_provenance.tools(data),
        ],
        license=card_origin.license_text(identity, metadata, base),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _intro(data: CardData, base: Sequence[str], history: History | None) -> str:
    of = " and ".join(map(card_origin.linked, base)) if base else escaped(data.main.header.name)
    if history:
        original = of if base else code(history.source)
        of = f"{escaped(data.main.header.name)}, a model made of the layers of {original} without training,"
    text = f"GGUF files of {of} for llama.cpp and what is built on it"
    units = {"layer" if file.plan.layer_types else "tensor" for file in data.files if file.plan}
    if not units:
        return f"{text}."
    unit = " or ".join(sorted(units))
    rounding = (
        " and error-compensated rounding" if any(file.plan and file.plan.compensated for file in data.files) else ""
    )
    return f"{text}: written by stock llama-quantize, with a type for each {unit} chosen by quantplan {__version__}{rounding}."
