"""Whose model a card describes: base model, license, and the YAML front matter that hubs read."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quantplan.report.card_data import CardData
from quantplan.report.markdown import escaped, yaml_scalar

_HOST = "https://huggingface.co/"
_UNKNOWN_LICENSE = "see the base model"
_SOURCES = ("general.source.huggingface.repository", "general.source.repo_url", "general.repo_url")


@dataclass(frozen=True)
class Identity:
    """What nobody can measure: the repository of the files, whose model it is, and who made them; None where not given."""

    repo: str | None = None
    base_model: str | None = None
    license: str | None = None
    quantized_by: str | None = None


def base_models(identity: Identity, metadata: Mapping[str, object]) -> tuple[str, ...]:
    """``owner/repo`` of what was quantized: as given, else the metadata's source, else the models that it was made from."""
    if identity.base_model:
        return (identity.base_model,)
    sources = (repo for key in _SOURCES if (repo := _repository(metadata.get(key))))
    source = next(sources, None)
    return (source,) if source else ancestors(metadata)


def ancestors(metadata: Mapping[str, object]) -> tuple[str, ...]:
    """What the metadata names as general.base_model: the models that this one was made from, not this one itself."""
    count = metadata.get("general.base_model.count", 0)
    keys = (f"general.base_model.{index}.repo_url" for index in range(count if isinstance(count, int) else 0))
    return tuple(repo for key in keys if (repo := _repository(metadata.get(key))))


def _repository(value: object) -> str | None:
    pattern = rf"(?:{re.escape(_HOST)})?([\w.-]+/[\w.-]+)/?"
    match = re.fullmatch(pattern, value, re.ASCII) if isinstance(value, str) else None
    return match[1] if match else None


def license_text(identity: Identity, metadata: Mapping[str, object], base: Sequence[str]) -> str:
    named = identity.license or _text(metadata, "general.license.name") or _text(metadata, "general.license")
    link = _text(metadata, "general.license.link") if not identity.license else None
    if named:
        return f"{escaped(named)}: {escaped(link)}" if link else escaped(named)
    return f"Unknown here: {_UNKNOWN_LICENSE}" + (f" ({', '.join(map(linked, base))})." if base else ".")


def _text(metadata: Mapping[str, object], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value.strip() else None


def linked(repo: str) -> str:
    return f"[{escaped(repo)}]({_HOST}{repo})"


def front_matter(
    data: CardData, identity: Identity, metadata: Mapping[str, object], surgery: bool = False
) -> list[str]:
    """The lines of YAML that hubs read; a key that is not known is left out. ``surgery``: tags the model as operated on."""
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
    imatrix = any(file.plan and file.plan.imatrix for file in data.files)
    tags = ["gguf", "quantplan", *(["imatrix"] if imatrix else []), *(["layer-surgery"] if surgery else [])]
    return [*lines, "library_name: gguf", *_yaml_list("tags", tags)]


def _yaml_list(key: str, values: Sequence[str]) -> list[str]:
    return [f"{key}:", *(f"- {yaml_scalar(value)}" for value in values)] if values else []
