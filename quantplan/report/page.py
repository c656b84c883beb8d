"""The report page: one HTML file that needs nothing else, made from ``page_data`` and the templates."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quantplan.budget import human_bytes
from quantplan.measurement import Estimate
from quantplan.records.files import replacing
from quantplan.report.cells import estimate, number, per_token

# in the order in which they use each other
_SCRIPTS = ("data.js", "chart.js", "heat_map.js", "tables.js", "page.js")
_STYLE = "page.css"


def write_page(data: Mapping[str, Any], path: Path) -> None:
    """Writes the page of these data."""
    with replacing(path) as file:
        file.write(page(data))


def page(data: Mapping[str, Any]) -> str:
    """The page's HTML. It allows itself no network and no script but its own, whatever names the data hold."""
    templates = Environment(
        loader=PackageLoader("quantplan", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"bytes": human_bytes, "figure": _figure, "number": number, "per_token": per_token}
    style = _source(_STYLE)
    script = "(() => {\n'use strict';\n" + "".join(map(_source, _SCRIPTS)) + "})();\n"
    return templates.get_template("page.html").render(
        data=data,
        json=_inside_script(data),
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
    )


def _source(name: str) -> str:
    return files("quantplan.report").joinpath("templates").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a content security policy names what it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _inside_script(data: Mapping[str, Any]) -> Markup:
    """JSON that no browser can take for the end of the script that it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _figure(row: Mapping[str, Any], name: str) -> str:
    """A figure of a measurement with its error."""
    value = row[name]
    return estimate(None if value is None else Estimate(value, row[f"{name}_err"]))
