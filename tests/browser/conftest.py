"""One Chromium for all tests of pages; without one they are skipped, and say what installs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import MISSING, Page, executable


@pytest.fixture(scope="session")
def browser() -> Iterator[Page]:
    program = executable()
    if program is None:
        pytest.skip(MISSING)
    with Page(program) as page:
        yield page
