"""Which tensors an option means: a name, a role, a glob, or a regular expression between slashes."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from quantplan.errors import BadUsage, NothingSelected
from quantplan.patterns import Pattern, regular_expression
from quantplan.tensor import Tensor


@dataclass(frozen=True)
class Selector:
    """``attn_v`` (role), ``output.weight`` (name), ``blk.1[0-5].ffn_*`` (glob), ``/^blk\\.3\\./`` (regex, searched)."""

    text: str

    def matches(self, tensor: Tensor) -> bool:
        if len(self.text) > 2 and self.text[0] == self.text[-1] == "/":
            return self._regex().search(tensor.name)
        bare = tensor.name.removesuffix(".weight")
        return any(fnmatchcase(each, self.text) for each in (tensor.name, bare, tensor.role))

    def _regex(self) -> Pattern:
        try:
            return regular_expression(self.text[1:-1])
        except ValueError as error:
            raise BadUsage(f"{self.text} is not a regular expression: {error}") from None

    def select(self, tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """The tensors meant; NothingSelected with near names where there is none."""
        tensors = tuple(tensors)
        chosen = tuple(tensor for tensor in tensors if self.matches(tensor))
        if not chosen:
            names = {tensor.role for tensor in tensors} | {tensor.name for tensor in tensors}
            near = difflib.get_close_matches(self.text, sorted(names), n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else "roles: " + ", ".join(sorted({t.role for t in tensors}))
            )
            raise NothingSelected(f"no quantizable tensor matches {self.text!r}; {hint}")
        return chosen


def parse_assignment(text: str) -> tuple[Selector, str]:
    """``SELECTOR=TYPE`` split at the last ``=``; BadUsage where there is none."""
    selector, equals, kind = text.rpartition("=")
    if not equals or not selector or not kind:
        raise BadUsage(f"{text!r} is not of the form SELECTOR=TYPE, for example attn_v=Q6_K")
    return Selector(selector), kind
