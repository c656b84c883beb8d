"""Models as transformers saves them, made by hand, and a stand-in for llama.cpp's converter."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import numpy as np

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 2}
_STAND_IN = '''"""Does what files next to it say: model.gguf is what it writes, said.txt what it says, code.txt how it ends."""
import argparse, pathlib, shutil, sys

parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
for name in ("--outfile", "--outtype", "--model-name"):
    parser.add_argument(name, required=True)
given = parser.parse_args()
here = pathlib.Path(__file__).parent
with (here / "runs.txt").open("a") as log:
    log.write(f"{given.model} {given.outtype} {given.model_name}\\n")
if (here / "model.gguf").exists():
    shutil.copyfile(here / "model.gguf", given.outfile)
print((here / "said.txt").read_text() if (here / "said.txt").exists() else "", file=sys.stderr)
sys.exit(int((here / "code.txt").read_text()) if (here / "code.txt").exists() else 0)
'''


def safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A file of zeros in BF16."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return path


def checkpoint(folder: Path, elements: int = 1000) -> Path:
    """A folder with so many weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": (elements // 10, 10)})
    return folder


def stand_in(folder: Path, gguf: Path | None) -> Path:
    """A checkout whose converter writes a copy of ``gguf``."""
    folder.mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text(_STAND_IN)
    if gguf:
        (folder / "model.gguf").write_bytes(gguf.read_bytes())
    return folder


def python_with(folder: Path, *modules: str) -> Path:
    """This Python with empty modules of these names."""
    (folder / "modules").mkdir(parents=True)
    for name in modules:
        (folder / "modules" / f"{name}.py").touch()
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{folder / "modules"}" exec "{sys.executable}" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
