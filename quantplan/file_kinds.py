"""What a file is that was taken for another: failed downloads, archives and formats of other programs, by their first bytes."""

import re
from pathlib import Path

START = 512  # bytes that are enough to tell
_AGAIN = "the download failed; download the file itself again"
_UNPACK = "unpack it first"
_CONVERT = "convert the model to GGUF first: `quantplan init FOLDER`, with the folder that config.json is in"
_OLD = "a model in the ggml format of before GGUF ({}), which llama.cpp no longer reads; get the model as GGUF"
_PICKLE = f"a Python pickle, as PyTorch writes models: {_CONVERT}"
_SIGNATURES = (
    (b"\x1f\x8b", f"a gzip archive: {_UNPACK} (gunzip)"),
    (b"\x28\xb5\x2f\xfd", f"a zstd archive: {_UNPACK} (unzstd)"),
    (b"\xfd7zXZ\0", f"an xz archive: {_UNPACK} (unxz)"),
    (b"BZh", f"a bzip2 archive: {_UNPACK} (bunzip2)"),
    (b"7z\xbc\xaf", f"a 7z archive: {_UNPACK}"),
    (b"Rar!", f"a RAR archive: {_UNPACK}"),
    (b"lmgg", _OLD.format("ggml")),
    (b"fmgg", _OLD.format("ggmf")),
    (b"tjgg", _OLD.format("ggjt")),
    (b"algg", "a LoRA adapter in the format of before GGUF, which is no model"),
    (b"nsgg", "a saved session of llama.cpp, which is no model"),
    (b"MZqFpD", f"a llamafile, a program with a GGUF in it: {_UNPACK} (unzip)"),
    (b"\x93NUMPY", "a NumPy array, which is no model"),
    (b"\x89HDF", f"an HDF5 file: {_CONVERT}"),
    *((b"\x80\x02" + code, _PICKLE) for code in (b"\x8a", b"}", b"c", b"(", b"]")),
    *((bytes((0x80, version)), _PICKLE) for version in (3, 4, 5)),
    (b"%PDF", "a PDF document, which is no model"),
    (b"\x89PNG", "an image (PNG), which is no model"),
    (b"\xff\xd8\xff", "an image (JPEG), which is no model"),
    (b"\x7fELF", "a program, which is no model"),
    (
        b"\xff\xfeG\0G\0U\0F\0",
        f"a GGUF that was written as a text in UTF-16, as > of PowerShell does: {_AGAIN} (curl -o)",
    ),
)
_POINTER_SIZE = re.compile(r"^(?:size|filesize =) *(\d+)", re.MULTILINE)
_TITLE = re.compile(r"<title>\s*([^<]{1,80})", re.IGNORECASE)
_REFUSALS = re.compile(
    r"(?:entry|repository|revision|file|page|404:?) not found|not found|404\b|forbidden|unauthorized|access denied|"
    r"invalid (?:username|credentials)|access to model .* is restricted|internal server error|bad gateway|too many requests",
    re.IGNORECASE,
)


_UNFINISHED = (".aria2", ".crdownload", ".download", ".incomplete", ".opdownload", ".part", ".tmp", ".!qb")


def unfinished(path: Path) -> str | None:
    """What to do about a file whose name is that of an unfinished download; None for any other."""
    if not any(f"{suffix}." in f"{path.name.lower()}." for suffix in _UNFINISHED):
        return None
    return "its name is that of an unfinished download: let it end, or download it again"


def file_kind(start: bytes, size: int) -> str | None:
    """What a file of ``size`` bytes that begins with ``start`` (its first ``START`` bytes) is, and what to do about it; None
    for a GGUF, for text that may be meant, and for what these bytes do not tell."""
    if size == 0:
        return f"an empty file: {_AGAIN}"
    if start[:4] == b"GGUF":
        return None
    if not any(start):
        return f"a file of zeros, as unfinished downloads and damaged disks leave them: {_AGAIN}"
    for signature, meaning in _SIGNATURES:
        if start.startswith(signature):
            return meaning
    if start.startswith(b"PK\3\4"):
        return _zip(start)
    if start[257:262] == b"ustar":
        return f"a tar archive: {_UNPACK} (tar -xf)"
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") < size:
        return f"a safetensors file: {_CONVERT}"
    return _answer(start.decode("utf-8-sig", "replace").lstrip(), size)


def _zip(start: bytes) -> str:
    if b"data.pkl" in start or b"archive/" in start:
        return f"a checkpoint of PyTorch: {_CONVERT}"
    if b".npy" in start:
        return "an archive of NumPy arrays, which is no model in GGUF: convert the model first"
    return f"a zip archive: {_UNPACK} (unzip)"


def _answer(text: str, size: int) -> str | None:
    """Pointers and answers of servers."""
    lower, stands_for = text.lower(), _POINTER_SIZE.search(text)
    if lower.startswith(("version https://git-lfs", "# xet version")):
        which = "git-lfs" if lower.startswith("version") else "git-xet"
        meant = f" to a file of {int(stands_for[1]):,} bytes" if stands_for else ""
        command = f"`{which.replace('-', ' ')} pull`"
        return f"a {which} pointer{meant}: run {command}, or download the file itself, from an address with /resolve/ in it"
    if lower.startswith(("<!doctype html", "<html", "<head", "<body")) or (lower[:4] == "<!--" and "<html" in lower):
        title = _TITLE.search(text)
        page = f"a web page ({title[1].strip()})" if title else "a web page"
        return (
            f"{page}: the download failed; download the file itself, from an address with /resolve/ instead of /blob/"
        )
    if lower.startswith(("<?xml", "<error", "<response")):
        return f"XML, an answer of a server ({_line(text)}): {_AGAIN}"
    if lower.startswith("{") and '"weight_map"' in lower:
        return f"the index of a model in safetensors: {_CONVERT}"
    if lower.startswith("{") and '"schemaversion"' in lower:
        return "a manifest of ollama: give the file under blobs/ that it names"
    if lower.startswith("{") and re.search(r'"(?:error|message|detail|statuscode)"', lower):
        return f"an answer of a server in JSON ({_line(text)}): {_AGAIN}"
    if size <= START and _REFUSALS.match(text):
        return f"an answer of a server ({_line(text)}): {_AGAIN}"
    return None


def _line(text: str) -> str:
    line = text.strip().splitlines()[0]
    return line if len(line) <= 80 else f"{line[:80]} ..."


def start_in_words(start: bytes) -> str:
    """The first bytes of an unknown file for a message: as text where they are some, else as hexadecimal numbers."""
    head = start[:16]
    if head.isascii() and head.decode().isprintable():
        return f"it starts with {head.decode()!r}"
    return f"it starts with the bytes {head[:4].hex(' ')}"
