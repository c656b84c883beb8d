"""Downloads from a hub on this machine: whole, resumed, cut, spoiled, refused, and without any hub at all."""

import random

import huggingface_hub.constants
import pytest
from hub_server import COMMIT, TOKEN, FakeHub, serving
from reporters import Recorder

from quantplan.errors import BadFile, BadUsage, NoSpace, NothingSelected
from quantplan.hub import hub as hub_files
from quantplan.hub.hub import Hub
from quantplan.hub.reference import HubReference

CHUNK = 1 << 14
DATA = random.Random(0).randbytes(20 * CHUNK + 77)
SHARDS = {f"s-0000{index}-of-00002.gguf": DATA[index:] for index in (1, 2)}
FILE = HubReference("o/r", "m-Q4_K_M.gguf")


class Person(Recorder):
    """What was said and shown; Ctrl-C after ``patience`` bytes."""

    def __init__(self, patience=None):
        super().__init__(self.watch)
        self.patience = patience

    def watch(self, _name, done, _total):
        if self.patience is not None and done > self.patience:
            raise KeyboardInterrupt

    def fetch(self, reference, place):
        return place.fetch(reference, self)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)  # 10 MB: a test would see one chunk
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    repos = {"o/r": {"README.md": b"card", "m-Q4_K_M.gguf": DATA, **SHARDS}, "o/none": {"README.md": b"card"}}
    with serving(FakeHub(repos)) as found:
        yield found


@pytest.fixture
def place(hub, tmp_path):
    return Hub(hub.endpoint, tmp_path / "cache")


def test_a_file_comes_whole_and_only_once(hub, place):
    person = Person()
    path = person.fetch(FILE, place)
    assert path.name == "m-Q4_K_M.gguf" and path.read_bytes() == DATA
    assert path.is_relative_to(place.folder / "models--o--r" / "snapshots" / COMMIT)  # the hub's own cache layout
    assert person.events[-1] == ("m-Q4_K_M.gguf", len(DATA), len(DATA))
    assert person.said == ["downloading m-Q4_K_M.gguf of o/r: 327.76 kB"]
    assert person.fetch(FILE, place) == path == person.fetch(HubReference("o/r"), place)
    assert hub.downloads == [None] and len(person.said) == 1
    assert len(list((place.folder / "models--o--r" / "blobs").iterdir())) == 1  # no part, no lock is left there


def test_what_would_come_is_known_before(hub, place):
    reference = HubReference("o/r", "s-00001-of-00002.gguf")
    found = place.files(reference)
    assert [(file.name, file.size, file.cached) for file in found] == [
        (name, len(data), False) for name, data in SHARDS.items()
    ]
    Person().fetch(reference, place)
    assert all(file.cached for file in place.files(reference))
    with pytest.raises(NothingSelected, match="no repository"):
        place.files(HubReference("o/wrong"))


def test_all_shards_come(place):
    path = Person().fetch(HubReference("o/r", "s-00002-of-00002.gguf"), place)
    assert path.name == "s-00001-of-00002.gguf"
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == SHARDS


def test_after_an_interruption_nothing_half_is_taken(hub, place):
    with pytest.raises(KeyboardInterrupt):
        Person(patience=9 * CHUNK).fetch(FILE, place)
    assert Person().fetch(FILE, place).read_bytes() == DATA
    assert list(place.folder.rglob("*.incomplete")) == []


def test_a_connection_that_breaks_is_resumed(hub, place):
    hub.cut_after = 12 * CHUNK + 5
    assert Person().fetch(FILE, place).read_bytes() == DATA
    assert hub.downloads == [None, f"bytes={12 * CHUNK}-"]


@pytest.mark.parametrize(
    "reference, error, message",
    [
        (
            HubReference("o/wrong"),
            NothingSelected,
            "no repository o/wrong on http://127.0.0.1.*; if it is private, set HF_TOKEN",
        ),
        (HubReference("o/r", revision="old"), NothingSelected, "o/r has no revision old"),
        (
            HubReference("o/r", quant="Q8_0"),
            NothingSelected,
            "o/r has no quant Q8_0; there are: m-Q4_K_M.gguf, s-00001",
        ),
        (HubReference("o/none"), NothingSelected, "o/none has no GGUF model"),
        (HubReference("o/a--b"), BadUsage, "hf://o/a--b: Cannot have -- or .."),
    ],
)
def test_what_is_not_there(hub, place, reference, error, message):
    with pytest.raises(error, match=message):
        Person().fetch(reference, place)
    assert not place.folder.exists()


def test_a_gated_repository_wants_a_token(hub, place, monkeypatch):
    hub.gated.add("o/r")
    with pytest.raises(BadFile, match="o/r is gated: accept its conditions on its page, set HF_TOKEN"):
        Person().fetch(FILE, place)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert Person().fetch(FILE, place).read_bytes() == DATA


def test_a_disk_without_room(hub, place, monkeypatch):
    free = len(DATA) + hub_files.SPARE_BYTES - 1
    monkeypatch.setattr(hub_files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    with pytest.raises(
        NoSpace, match="327.76 kB are to be downloaded to .*, the disk has .* free; free some, or set HF_HUB_CACHE"
    ):
        Person().fetch(FILE, place)
    assert hub.downloads == []


def test_without_a_hub_the_cache_is_taken_and_that_is_said(hub, place, tmp_path):
    path = Person().fetch(FILE, place)
    nobody = Hub("http://127.0.0.1:9", place.cache)  # the discard port: refused
    person = Person()
    assert person.fetch(FILE, nobody) == person.fetch(HubReference("o/r", quant="q4_k_m"), nobody) == path
    assert "http://127.0.0.1:9 cannot be reached" in person.said[0] and "from the cache" in person.said[0]
    with pytest.raises(BadFile, match="is not in the cache .*cannot be reached .*check the network"):
        person.fetch(HubReference("o/r", quant="Q8_0"), nobody)


def test_a_split_model_that_is_half_in_the_cache_is_not_taken(hub, place):
    first, second = Person().fetch(HubReference("o/r", "s-00001-of-00002.gguf"), place).parent.iterdir()
    second.unlink()
    with pytest.raises(BadFile, match="is not in the cache"):
        Person().fetch(HubReference("o/r", first.name), Hub("http://127.0.0.1:9", place.cache))
