"""Text that needs no network: the language reference that comes with Python, split so that the parts never overlap."""

_HELDOUT_EVERY = 3


def demo_texts() -> tuple[str, str]:
    """(calibration, evaluation): whole topics of ``pydoc_data.topics`` in turn, two to one.

    Topics quote one another; a paragraph that stands in the calibration text, or a long line of which does, is left out of the
    evaluation text, so that nothing is evaluated on the text that chose it.
    """
    from pydoc_data.topics import topics

    calibration: dict[str, None] = {}
    heldout: dict[str, None] = {}
    for index, name in enumerate(sorted(topics)):
        part = heldout if index % _HELDOUT_EVERY == 0 else calibration
        part |= dict.fromkeys(paragraph for paragraph in topics[name].split("\n\n") if paragraph.strip())
    known = {line.strip() for paragraph in calibration for line in paragraph.splitlines() if _long(line)}
    evaluation = [
        each for each in heldout if each not in calibration and known.isdisjoint(map(str.strip, each.splitlines()))
    ]
    return "\n\n".join(calibration), "\n\n".join(evaluation)


def _long(line: str) -> bool:
    return len(line.strip()) >= 40
