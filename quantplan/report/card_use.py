"""The commands of a model card that run its files."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from quantplan.errors import NothingSelected
from quantplan.evaluate.published_files import PublishedFile
from quantplan.hub.reference import HubReference, model_files
from quantplan.llamacpp.chat import ALWAYS, NEVER
from quantplan.llamacpp.chat_abilities import ChatAbilities
from quantplan.report.card_data import CardData
from quantplan.report.markdown import block
from quantplan.report.modelfile import CHAT_TEMPLATE

_A_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Gives the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def tag_of(name: str, names: Sequence[str]) -> str | None:
    """The shortest end of a file's name that ``-hf repo:tag`` resolves to it among all of them; None where there is none."""
    words = re.split(r"(?<=-)|(?<=\.)(?!\d)", name.removesuffix(".gguf"))
    for start in range(len(words) - 1, -1, -1):
        tag = "".join(words[start:])
        try:
            if model_files(HubReference("o/r", quant=tag), sorted(names))[0] == name:
                return tag
        except NothingSelected:
            continue
    return None


def _options(file: PublishedFile) -> str:
    """The context of the first use of memory, unless the file was planned for one, and what else it was planned for."""
    words = file.plan.serve_arguments if file.plan else ()
    context = f" -c {file.memory[0].needs.ctx}" if file.memory and "-c" not in words else ""
    return context + (f" {shlex.join(words)}" if words else "")


def _sources(data: CardData, repo: str | None) -> list[str]:
    """How llama.cpp's tools are told which file: from the hub if it is there, and by its name."""
    main = data.main
    words = [f"-m {shlex.quote(main.name)}{_options(main)}"]
    if repo:
        tag = tag_of(main.name, [file.name for file in data.files])
        which = f"-hf {shlex.quote(f'{repo}:{tag}')}" if tag else f"-hf {repo} -hff {shlex.quote(main.name)}"
        words.insert(0, f"{which}{_options(main)}")
    return words


def llama_cpp(data: CardData, repo: str | None) -> str:
    return block("\n".join(f"llama-cli {source}" for source in _sources(data, repo)), "sh")


def thinking(data: CardData, repo: str | None, abilities: ChatAbilities | None) -> str:
    """How to switch or limit it; empty for a model that does not think."""
    if abilities is None or abilities.thinks == NEVER:
        return ""
    source = _sources(data, repo)[0]
    if abilities.thinks == ALWAYS:
        return block(f"llama-cli {source} --reasoning-budget 1024  # tokens of thinking; -1: as many as it takes", "sh")
    lines = [f"llama-cli {source} --reasoning on", f"llama-cli {source} --reasoning off  # answers at once"]
    lines.append('# a request to llama-server may choose, too: "chat_template_kwargs": {"enable_thinking": false}')
    return block("\n".join(lines), "sh")


def tools(data: CardData, repo: str | None, abilities: ChatAbilities | None) -> str:
    """llama-server and a request with a tool; empty for a template that knows none."""
    if abilities is None or not abilities.tools:
        return ""
    request = {"messages": [{"role": "user", "content": "What is the weather in Oslo?"}], "tools": [_A_TOOL]}
    lines = [
        f"llama-server {_sources(data, repo)[0]} --jinja",
        "curl http://localhost:8080/v1/chat/completions -H 'Content-Type: application/json' -d "
        + shlex.quote(json.dumps(request)),
    ]
    return block("\n".join(lines), "sh")


def llama_cpp_python(data: CardData, repo: str | None, metadata: Mapping[str, object]) -> str:
    main = data.main
    context = f", n_ctx={main.memory[0].needs.ctx}" if main.memory else ""
    if repo:
        made = f"Llama.from_pretrained(repo_id={repo!r}, filename={main.name!r}{context})"
    else:
        made = f"Llama(model_path={main.name!r}{context})"
    call = 'llm("Once upon a time", max_tokens=64)["choices"][0]["text"]'
    if isinstance(metadata.get(CHAT_TEMPLATE), str):
        call = 'llm.create_chat_completion([{"role": "user", "content": "Hello!"}])["choices"][0]["message"]["content"]'
    return block(f"from llama_cpp import Llama\n\nllm = {made}\nprint({call})", "python")


def ollama(data: CardData, repo: str | None) -> str:
    main = data.main
    if main.shards > 1:
        return "Ollama takes no split files: join them first with `llama-gguf-split --merge`."
    name = re.sub(r"[^a-z0-9._-]+", "-", main.name.removesuffix(".gguf").lower())
    lines = [f"ollama create {name} -f Modelfile", f"ollama run {name}"]
    tag = tag_of(main.name, [file.name for file in data.files])
    if repo and tag:
        lines = [
            f"ollama run {shlex.quote(f'hf.co/{repo}:{tag}')}",
            "# or from the file and the Modelfile next to it",
            *lines,
        ]
    return block("\n".join(lines), "sh")
