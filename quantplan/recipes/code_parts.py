"""The code in a text that people publish: fenced blocks, indented ones, spans between back-ticks; marks of a diff taken off."""

import ast
import html
import re
import shlex
import warnings

_FENCE = re.compile(r"[\s>]*(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")
_PRE = re.compile(r"<pre\b[^>]*>(?:\s*<code\b[^>]*>)?(.*?)(?:</code>\s*)?</pre>", re.DOTALL | re.IGNORECASE)
_SPAN = re.compile(r"(?<!`)(`+)(?!`)\s?([^`\s](?:[^`]*[^`\s])?) ?\1(?!`)")
_INDENTED = re.compile(r"(?:^(?: {4}|\t).*(?:\n|\Z)|^[ \t]*\n(?=(?:[ \t]*\n)*(?: {4}|\t)))+", re.MULTILINE)
_PROSE = re.compile(r"^(?![ \t#]|(?:@?echo|printf|rem|::)\b).*\w'\w", re.MULTILINE | re.IGNORECASE)  # It's
_COMMAND = re.compile(r"(?<!\S)\S*quantize(?:\.exe)?[ \t](?:[^\n]*[\\^`]\n)*[^\n]*", re.IGNORECASE)
_PROGRAM = re.compile(r".*quantize(?:\.exe)?", re.IGNORECASE)
_DIFF = re.compile(r"^([+-])(?=\s*(?:[\[\]\"']|LAYER_TYPES|FLAGS|[^\s-][^\s=]*[ \t]*=))", re.MULTILINE)
_TYPOGRAPHY = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'", "\u00a0": " "})
_DASH = re.compile(r"(?<!\S)[\u2013\u2014]{1,2}(?=[a-z])")  # word processors make one of two hyphens
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of a terminal's output


def plain_text(text: str) -> str:
    """With the quotes and hyphens that a keyboard has, and without the marks of a diff: of lines that differ the added ones."""
    text = _DASH.sub("--", _COLOURS.sub("", text.translate(_TYPOGRAPHY)))
    signs = set(_DIFF.findall(text))
    if "+" in signs:
        text = "\n".join(line for line in text.split("\n") if not (line.startswith("-") and _DIFF.match(line)))
    return _DIFF.sub("", text)


def code_blocks(text: str) -> tuple[str, ...]:
    """The blocks between code fences, and HTML's <pre>; one without an end goes to the end of the text."""
    blocks: list[str] = []
    fence, lines = "", list[str]()
    for line in text.splitlines():
        match = _FENCE.match(line)
        if fence and match and match["fence"].startswith(fence) and not match["info"].strip():
            blocks.append("\n".join(lines))
            fence, lines = "", []
        elif fence:
            lines.append(re.sub(r"^(?:> ?)+", "", line))
        elif match:
            fence = match["fence"]
    if lines:
        blocks.append("\n".join(lines))
    return (*blocks, *(html.unescape(match) for match in _PRE.findall(text)))


def code_spans(text: str) -> tuple[str, ...]:
    """What stands between single back-ticks."""
    return tuple(span for _, span in _SPAN.findall(text))


def indented_blocks(text: str) -> tuple[str, ...]:
    """Blocks of lines indented by four blanks or a tab, as older Markdown marks code."""
    return tuple(block for block in _INDENTED.findall(text) if block.strip())


def command_lines(text: str) -> tuple[str, ...]:
    """The lines, continued ones whole, from a llama-quantize in them on."""
    return tuple(_COMMAND.findall(text))


def argument_lists(code: str) -> tuple[str, ...]:
    """The commands that Python code has as lists of their words, as shell lines; what is no literal stands as it is written."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            nodes = ast.walk(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    lists = [node.elts for node in nodes if isinstance(node, ast.List | ast.Tuple)]
    words = [
        [each.value if isinstance(each, ast.Constant) else ast.unparse(each) for each in elements] for elements in lists
    ]
    return tuple(shlex.join(map(str, line)) for line in words if any(_PROGRAM.fullmatch(str(word)) for word in line))


def has_prose(text: str) -> bool:
    """Whether apostrophes of sentences stand among the lines, which are no quotes of a script."""
    return bool(_PROSE.search(text))
