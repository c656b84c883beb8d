"""llama.cpp's convert_hf_to_gguf.py: of a checkout that is named, or of the very llama-cpp-python that is installed.

Its wheel does not have the script, its source package does, with all of llama.cpp: the script, the modules of its architectures
and its own gguf-py are kept in the cache, 2 MB of 75.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from quantplan.errors import BadFile, ToolFailed, ToolMissing
from quantplan.llamacpp.libraries import INSTALL_HINT
from quantplan.llamacpp.tools import Finished, command_line, run_program
from quantplan.progress import SILENT, Reporter
from quantplan.records.files import make_folder, part_of

SCRIPT = "convert_hf_to_gguf.py"
_PACKAGE = "llama-cpp-python"
_TAKEN = (SCRIPT, "conversion/", "gguf-py/gguf/", "LICENSE")
# modules of the script and of gguf-py, and the packages that have them
NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "safetensors": "safetensors",
    "sentencepiece": "sentencepiece",
    "numpy": "numpy",
    "yaml": "pyyaml",
    "tqdm": "tqdm",
    "requests": "requests",
}
_ASK = "import importlib.util, json; print(json.dumps([n for n in {names!r} if importlib.util.find_spec(n) is None]))"


@dataclass(frozen=True)
class Converter:
    """The script, where it comes from, and the Python that runs it."""

    script: Path
    origin: str
    python: str


def missing_packages(python: str) -> list[str]:
    """The packages that the script needs and the Python does not have. ToolMissing where there is no such Python."""
    asked = [python, "-c", _ASK.format(names=tuple(NEEDED))]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
        return [NEEDED[name] for name in json.loads(answer)]
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError) as error:
        raise ToolMissing(
            f"{python} is not a Python that runs ({error}); name one that has torch and transformers with --converter-python"
        ) from None


def install_command(python: str, missing: list[str]) -> str:
    """What to do about missing packages, as a part of a sentence."""
    command = command_line([python, "-m", "pip", "install", *missing])
    return f"run: {command} (torch takes some GB), or name a Python that has them with --converter-python"


def installed_version() -> str:
    """Of llama-cpp-python; ToolMissing without it."""
    try:
        return importlib.metadata.version(_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ToolMissing(f"{_PACKAGE} is not installed; run: {INSTALL_HINT}") from None


def kept_script(cache: Path, version: str) -> Path:
    """Where the script of a version is kept once its source package was downloaded."""
    return cache / f"converter-{version}" / SCRIPT


def find_converter(checkout: Path | None, python: str, cache: Path, report: Reporter = SILENT) -> Converter:
    """The converter of a llama.cpp checkout, or of the installed version; downloaded where the cache does not have it.

    ToolMissing where the checkout has none, and, with the command that installs it, where the Python does not have what the
    script imports; ToolFailed where it cannot be downloaded.
    """
    if missing := missing_packages(python):
        raise ToolMissing(
            f"{SCRIPT} needs {', '.join(missing)}, which {python} does not have; {install_command(python, missing)}"
        )
    if checkout is not None:
        script = checkout if checkout.name == SCRIPT else checkout / SCRIPT
        if not script.is_file():
            raise ToolMissing(f"--converter {checkout}: no {SCRIPT} there; name a checkout of llama.cpp")
        return Converter(script, str(script.parent), python)
    version = installed_version()
    script = kept_script(cache, version)
    if not script.is_file():
        _download(version, script.parent, report)
    return Converter(script, f"{_PACKAGE} {version}", python)


def _download(version: str, folder: Path, report: Reporter) -> None:
    report.say(f"downloading the source package of {_PACKAGE} {version} for its {SCRIPT} (about 75 MB, once)")
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix="quantplan-") as place:
        wanted = ["--no-deps", "--no-binary", _PACKAGE, f"{_PACKAGE}=={version}", "--dest", place]
        argv = [sys.executable, "-m", "pip", "download", *wanted]
        finished = run_program(argv, command_line(argv), dict(os.environ))
        packages = sorted(Path(place).glob("*.tar.gz"))
        if finished.code != 0 or not packages:
            raise ToolFailed(_not_downloaded(finished))
        part = part_of(folder)
        try:
            extract(packages[0], part)
            part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _not_downloaded(finished: Finished) -> str:
    said = "\n  ".join(finished.log.strip().splitlines()[-4:])
    return (
        f"the source package of {_PACKAGE} could not be downloaded; name a checkout of llama.cpp with --converter instead\n"
        f"  command: {finished.command}\n  it said:\n  {said}"
    )


def extract(package: Path, folder: Path) -> None:
    """The converter's files out of a source package. BadFile where they are not in it."""
    try:
        with tarfile.open(package) as archive:
            for member in archive:
                inside = member.name.partition("/vendor/llama.cpp/")[2]
                if not member.isfile() or not inside.startswith(_TAKEN) or ".." in PurePosixPath(inside).parts:
                    continue
                stream = archive.extractfile(member)
                assert stream is not None
                make_folder((folder / inside).parent)
                (folder / inside).write_bytes(stream.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadFile(f"{package.name}: damaged source package ({error}); run the command again") from None
    if not (folder / SCRIPT).is_file():
        raise BadFile(f"{package.name} has no {SCRIPT}; name a checkout of llama.cpp with --converter")
