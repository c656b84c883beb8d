"""The commands of a model card that run its files."""

import re
import shlex
from collections.abc import Mapping, Sequence

from quantplan.errors import NothingSelected
from quantplan.evaluate.published_files import PublishedFile
from quantplan.hub.reference import HubReference, model_files
from quantplan.report.card_data import CardData
from quantplan.report.markdown import block
from quantplan.report.modelfile import CHAT_TEMPLATE


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


def llama_cpp(data: CardData, repo: str | None) -> str:
    main = data.main
    lines = []
    if repo:
        tag = tag_of(main.name, [file.name for file in data.files])
        which = f"-hf {shlex.quote(f'{repo}:{tag}')}" if tag else f"-hf {repo} -hff {shlex.quote(main.name)}"
        lines.append(f"llama-cli {which}{_options(main)}")
    lines.append(f"llama-cli -m {shlex.quote(main.name)}{_options(main)}")
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
