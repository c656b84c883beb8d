"""Downloads of models from a Hugging Face hub into its own cache, which llama.cpp and others share.

Requests, tokens, cache folders and their environment variables (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE)
are huggingface_hub's. What it does no longer is to go on with a download of another process: it writes to a file of its own
each time and deletes it. Here a partial file stays in the cache beside the place of the finished one, and is gone on with.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from quantplan.budget import human_bytes
from quantplan.errors import BadFile, BadUsage, NoSpace, NothingSelected, QuantplanError
from quantplan.hub.reference import HubReference, model_files

SPARE_BYTES = 64 << 20  # left free beside the download
_TOKEN = "set HF_TOKEN to a token that may read it"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NOT_OVER_HTTP = 50 * 1000**3  # huggingface_hub fetches larger files by hf_xet only (MAX_HTTP_DOWNLOAD_SIZE)

Transfer = Callable[[str, float], AbstractContextManager[Callable[[float], None]]]


@dataclass(frozen=True)
class Hub:
    """Which hub, and the folder of its cache; None: what huggingface_hub takes from the environment."""

    endpoint: str | None = None
    cache: Path | None = None

    @property
    def folder(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache or constants.HF_HUB_CACHE).expanduser()


@dataclass(frozen=True)
class RemoteFile:
    """A file of one commit, as the hub describes it. ``blob``: where the cache keeps its bytes; ``cached``: they are there."""

    name: str
    size: int
    etag: str
    url: str
    blob: Path
    lock: Path  # huggingface_hub's own for this file
    cached: bool

    @property
    def part(self) -> Path:
        return self.blob.with_name(f"{self.blob.name}.quantplan.incomplete")

    @property
    def done(self) -> int:
        """Bytes that an earlier download left."""
        if self.cached:
            return self.size
        return min(self.part.stat().st_size, self.size) if self.part.exists() else 0


def fetch(reference: HubReference, say: Callable[[str], None], transfer: Transfer, hub: Hub | None = None) -> Path:
    """The model that is meant in the hub's cache, its first shard where it is split; downloaded unless it is there.

    ``transfer(name, bytes)`` is a progress bar that takes how many bytes more came. Raises NothingSelected for a repository,
    revision or file that is not there, BadFile where the hub refuses or does not answer, NoSpace.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    hub = hub or Hub()
    with _explained(reference, hub):
        try:
            commit, names = _listing(reference, hub)
        except (HTTPError, OfflineModeIsEnabled) as error:
            if isinstance(error, HfHubHTTPError):  # the hub did answer
                raise
            return _from_cache(reference, hub, say, error)
        wanted = _wanted(reference, commit, names, hub)
        _check_room(wanted, hub)
        for each in wanted:
            _download(each, reference, say, transfer)
        return [_linked(each, reference, hub) for each in wanted][0]


def wanted_files(reference: HubReference, hub: Hub | None = None) -> list[RemoteFile]:
    """What ``fetch`` would take from the hub, with what is there of it already; nothing is downloaded. Raises as ``fetch``."""
    hub = hub or Hub()
    with _explained(reference, hub):
        return _wanted(reference, *_listing(reference, hub), hub)


# --- what the hub has


def _listing(reference: HubReference, hub: Hub) -> tuple[str, list[str]]:
    """(commit, names of all files) of the revision."""
    from huggingface_hub import HfApi

    found = HfApi(endpoint=hub.endpoint).model_info(reference.repo, revision=reference.revision)
    if not found.sha:
        raise BadFile(f"the hub names no commit for {reference}: it is no hub that huggingface_hub can download from")
    return found.sha, [each.rfilename for each in found.siblings or ()]


def _wanted(reference: HubReference, commit: str, names: Sequence[str], hub: Hub) -> list[RemoteFile]:
    return [_described(name, reference, commit, hub) for name in model_files(reference, names)]


def _described(name: str, reference: HubReference, commit: str, hub: Hub) -> RemoteFile:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    url = hf_hub_url(reference.repo, name, revision=commit, endpoint=hub.endpoint)
    found = get_hf_file_metadata(url, endpoint=hub.endpoint)
    if not found.etag or found.size is None:
        raise BadFile(
            f"the hub says neither ETag nor size of {name} in {reference.repo}: a download could not be checked"
        )
    folder = _repository(reference, hub)
    blob, lock = folder / "blobs" / found.etag, hub.folder / ".locks" / folder.name / f"{found.etag}.lock"
    cached = blob.exists() or isinstance(try_to_load_from_cache(reference.repo, name, hub.folder, commit), str)
    return RemoteFile(name, found.size, found.etag, url, blob, lock, cached)


def _repository(reference: HubReference, hub: Hub) -> Path:
    """The repository's folder in the cache."""
    from huggingface_hub.file_download import repo_folder_name

    return hub.folder / repo_folder_name(repo_id=reference.repo, repo_type="model")


def _from_cache(reference: HubReference, hub: Hub, say: Callable[[str], None], reason: Exception) -> Path:
    """What an earlier download left of the model; BadFile where the cache does not have it all."""
    folder = _snapshot(reference, hub)
    names = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.gguf")) if folder else []
    offline = "HF_HUB_OFFLINE is set" if _offline(reason) else f"{_name(hub)} cannot be reached ({reason})"
    try:
        files = model_files(reference, names)
    except NothingSelected:
        mend = "unset it" if _offline(reason) else "check the network, the proxy settings and HF_ENDPOINT"
        raise BadFile(f"{reference} is not in the cache {hub.folder}, and {offline}; {mend}, and try again") from None
    assert folder is not None
    say(f"{offline}: taking {files[0]} of {reference.repo} as it lies in the cache")
    return folder / files[0]


def _snapshot(reference: HubReference, hub: Hub) -> Path | None:
    """The cache's folder of the revision: a commit's own, or that of the commit which the branch or tag meant last."""
    folder = _repository(reference, hub)
    branch = folder / "refs" / reference.revision
    commit = branch.read_text(encoding="utf-8").strip() if branch.is_file() else reference.revision
    found = folder / "snapshots" / commit
    return found if found.is_dir() else None


# --- the download


def _check_room(wanted: Sequence[RemoteFile], hub: Hub) -> None:
    needed = sum(each.size - each.done for each in wanted)
    folder = next(each for each in (hub.folder.absolute(), *hub.folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(folder).free
    if needed and needed + SPARE_BYTES > free:
        raise NoSpace(
            f"{human_bytes(needed)} are to be downloaded to {hub.folder}, the disk has {human_bytes(free)} free; "
            "free some, or set HF_HUB_CACHE to a folder on another disk"
        )


def _download(file: RemoteFile, reference: HubReference, say: Callable[[str], None], transfer: Transfer) -> None:
    """The finished blob in the cache, gone on with from where an earlier download ended."""
    from huggingface_hub.utils import WeakFileLock

    if file.cached:
        return
    going_on = f", going on at {human_bytes(file.done)}" if file.done else ""
    say(f"downloading {file.name} of {reference.repo}: {human_bytes(file.size)}{going_on}")
    if file.size > _NOT_OVER_HTTP:
        say("it comes by hf_xet, which begins anew after an interruption")
        return
    for folder in (file.blob.parent, file.lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(str(file.lock)), transfer(file.name, file.size) as advance:
        if not file.blob.exists():  # another process may have been faster
            _receive(file, advance)
            _check(file)
            file.part.replace(file.blob)


def _receive(file: RemoteFile, advance: Callable[[float], None]) -> None:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import are_progress_bars_disabled, build_hf_headers, disable_progress_bars

    if not are_progress_bars_disabled():
        disable_progress_bars()  # of its own: there is one already
    with _Counted(file.part, advance) as part:
        if part.tell() > file.size:
            part.truncate(0)
            part.seek(0)
        advance(part.tell())
        while part.tell() < file.size:
            before = part.tell()
            try:
                http_get(file.url, part, resume_size=before, headers=build_hf_headers(), expected_size=file.size)
            except HTTPError as error:
                if isinstance(error, HfHubHTTPError) or part.tell() == before:
                    raise  # refused, or nothing came this time


class _Counted(io.FileIO):
    """A file to go on with that says how many bytes are written."""

    def __init__(self, path: Path, advance: Callable[[float], None]) -> None:
        super().__init__(path, "a")
        self._advance = advance

    def write(self, data: bytes) -> int:  # type: ignore[override]
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        self._advance(len(data))
        return len(data)


def _check(file: RemoteFile) -> None:
    """BadFile, and the part removed, where size or digest are not as the hub said: large files are named by their SHA-256."""
    whole = file.part.stat().st_size == file.size
    if whole and _SHA256.fullmatch(file.etag):
        sha = hashlib.sha256()
        with file.part.open("rb") as part:
            while chunk := part.read(1 << 22):
                sha.update(chunk)
        whole = sha.hexdigest() == file.etag
    if not whole:
        file.part.unlink()
        raise BadFile(f"{file.name} came damaged: size or SHA-256 differ from what the hub says; download it again")


def _linked(file: RemoteFile, reference: HubReference, hub: Hub) -> Path:
    """The file under its own name in the cache; huggingface_hub finds the blob there, or fetches what is too large."""
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(
        reference.repo, file.name, revision=reference.revision, cache_dir=hub.folder, endpoint=hub.endpoint
    )
    return Path(path)


# --- what goes wrong


@contextmanager
def _explained(reference: HubReference, hub: Hub) -> Iterator[None]:
    """The errors of huggingface_hub in words that say what to do."""
    from huggingface_hub import errors

    repo = reference.repo
    try:
        yield
    except errors.GatedRepoError:
        raise BadFile(f"{repo} is gated: accept its conditions on its page, {_TOKEN}") from None
    except errors.RepositoryNotFoundError:
        hidden = f"or none that may be seen; if it is private, {_TOKEN}"
        raise NothingSelected(f"no repository {repo} on {_name(hub)}, {hidden}") from None
    except errors.RevisionNotFoundError:
        raise NothingSelected(
            f"{repo} has no revision {reference.revision}; name a branch, a tag or a commit"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        mend = _TOKEN if status in (401, 403) else "try again later; what came is kept"
        raise BadFile(f"{_name(hub)} answers {status} for {reference}: {mend}") from None
    except errors.HFValidationError as error:
        raise BadUsage(f"{reference}: {str(error).splitlines()[0]}") from None
    except (errors.HTTPError, OSError) as error:
        raise _broken(reference, hub, error) from None


def _broken(reference: HubReference, hub: Hub, error: Exception) -> QuantplanError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no space left on the disk of {hub.folder}; free some: the same command goes on with what came")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadFile(
        f"{reference} could not be downloaded from {_name(hub)}: {reason}; the same command goes on with what came"
    )


def _name(hub: Hub) -> str:
    from huggingface_hub import constants

    return hub.endpoint or constants.ENDPOINT


def _offline(error: Exception) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error, OfflineModeIsEnabled)
