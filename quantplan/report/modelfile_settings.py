"""What a person sets in a Modelfile: the system prompt and parameters, checked by Ollama's names and types (api.Options)."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from quantplan.errors import BadUsage

_WHOLE = [
    "num_ctx",
    "num_predict",
    "num_keep",
    "num_batch",
    "num_gpu",
    "num_thread",
    "main_gpu",
    "seed",
    "top_k",
    "repeat_last_n",
    "mirostat",
]
_NUMBERS = [
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "tfs_z",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat_tau",
    "mirostat_eta",
]
_STOP = "stop"  # a text, and the only one that may be given several times
_NAMES = (*_WHOLE, *_NUMBERS, _STOP)


@dataclass(frozen=True)
class ModelfileSettings:
    """``parameters``: (name, value as the Modelfile has it) in the order given."""

    system: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def lines(self) -> list[str]:
        system = [f'SYSTEM """{self.system}"""'] if self.system else []
        return [*(f"PARAMETER {name} {value}" for name, value in self.parameters), *system]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.parameters}


def modelfile_settings(system: str | None, parameters: Sequence[str]) -> ModelfileSettings:
    """Of a system prompt and ``name=value`` texts. BadUsage for what Ollama does not know or a Modelfile cannot say."""
    text = (system or "").strip()
    if '"""' in text:
        raise BadUsage('--system: a Modelfile cannot hold three " in a row; write them another way')
    named = tuple(map(_parameter, parameters))
    twice = next((name for name in _NAMES if name != _STOP and [one for one, _ in named].count(name) > 1), None)
    if twice:
        raise BadUsage(f"--parameter {twice} is given twice; leave one out")
    return ModelfileSettings(f"{text}\n" if text.endswith('"') else text, named)


def _parameter(word: str) -> tuple[str, str]:
    name, equals, value = (part.strip() for part in word.partition("="))
    if not equals or not value:
        raise BadUsage(f"--parameter {word}: write NAME=VALUE, as in --parameter temperature=0.6")
    if name not in _NAMES:
        near = difflib.get_close_matches(name, _NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(_NAMES)}"
        raise BadUsage(f"--parameter {name}: Ollama has no such parameter; {hint}")
    return name, _value(name, value)


def _value(name: str, text: str) -> str:
    if name == _STOP:
        if re.search(r'["\r\n]', text):
            raise BadUsage(f'--parameter stop={text}: a stop cannot hold " or a line end in a Modelfile')
        return f'"{text}"'
    whole = name in _WHOLE
    try:
        number = int(text) if whole else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadUsage(f"--parameter {name}={text}: {name} is a {'whole number' if whole else 'number'}")
    return f"{number:.9g}" if isinstance(number, float) else str(number)
