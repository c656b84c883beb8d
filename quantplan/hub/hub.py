"""Downloads of models from a Hugging Face hub into its own cache, which llama.cpp and others share.

Requests, tokens, cache folders and their environment variables (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE)
are huggingface_hub's. Its modules cost a quarter of a second to import, so they are imported where they are used.
"""

import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantplan.budget import human_bytes
from quantplan.errors import BadFile, BadUsage, NoSpace, NothingSelected, QuantplanError
from quantplan.hub.reference import HubReference, is_checkpoint, model_files
from quantplan.progress import SILENT, Advance, Reporter

SPARE_BYTES = 64 << 20  # left free on the disk after a download
Pick = Callable[[HubReference, Sequence[str]], tuple[str, ...]]  # of a repository's files, those that are meant
_TOKEN = "set HF_TOKEN to a token that may read it"


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. ``size``: bytes; ``cached``: it need not be downloaded."""

    name: str
    size: int
    cached: bool


@dataclass(frozen=True)
class Hub:
    """A hub, and the folder of its cache; None: what huggingface_hub takes from the environment."""

    endpoint: str | None = None
    cache: Path | None = None

    @property
    def name(self) -> str:
        from huggingface_hub import constants

        return self.endpoint or constants.ENDPOINT

    @property
    def folder(self) -> Path:
        from huggingface_hub import constants

        return Path(self.cache or constants.HF_HUB_CACHE).expanduser()

    def holds_checkpoint(self, reference: HubReference) -> bool:
        """Whether the repository holds safetensors and no GGUF, by the hub or, without a connection, by the cache."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

        with _errors_explained(reference, self):
            try:
                info = HfApi(endpoint=self.endpoint).model_info(reference.repo, revision=reference.revision)
            except (HTTPError, OfflineModeIsEnabled) as error:
                if isinstance(error, HfHubHTTPError):
                    raise
                return is_checkpoint(reference, sorted(self._cached(reference)))
        return is_checkpoint(reference, [sibling.rfilename for sibling in info.siblings or ()])

    def fetch(self, reference: HubReference, report: Reporter = SILENT, pick: Pick = model_files) -> Path:
        """The model in the cache, its first shard where it is split; downloaded unless it is there. ``pick``: which of the
        repository's files are meant; the first of them is returned.

        Each file that is downloaded is a stage of its bytes. Without a connection the model is taken from the cache.
        Raises NothingSelected for a repository, revision or file that is not there, BadFile where the hub refuses or does
        not answer, NoSpace.
        """
        from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

        with _errors_explained(reference, self):
            try:
                files = self._files(reference, pick)
            except (HTTPError, OfflineModeIsEnabled) as error:
                if isinstance(error, HfHubHTTPError):  # the hub did answer
                    raise
                return self._from_cache(reference, report, error, pick)
            self._check_room(files)
            return [self._download(file, reference, report) for file in files][0]

    def files(self, reference: HubReference, pick: Pick = model_files) -> list[RemoteFile]:
        """The files that ``fetch`` would take; nothing is downloaded. Raises as ``fetch``."""
        with _errors_explained(reference, self):
            return self._files(reference, pick)

    def _files(self, reference: HubReference, pick: Pick) -> list[RemoteFile]:
        from huggingface_hub import HfApi, hf_hub_download

        info = HfApi(endpoint=self.endpoint).model_info(reference.repo, revision=reference.revision)
        names = pick(reference, [sibling.rfilename for sibling in info.siblings or ()])
        found = []
        for name in names:
            file = hf_hub_download(
                reference.repo, name, revision=info.sha, cache_dir=self.folder, endpoint=self.endpoint, dry_run=True
            )
            found.append(RemoteFile(name, file.file_size or 0, file.is_cached))
        return found

    def _check_room(self, files: Sequence[RemoteFile]) -> None:
        needed = sum(file.size for file in files if not file.cached)
        folder = self.folder.absolute()
        free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.is_dir())).free
        if needed and needed + SPARE_BYTES > free:
            raise NoSpace(
                f"{human_bytes(needed)} are to be downloaded to {self.folder}, the disk has {human_bytes(free)} free; "
                "free some, or set HF_HUB_CACHE to a folder on another disk"
            )

    def _download(self, file: RemoteFile, reference: HubReference, report: Reporter) -> Path:
        from huggingface_hub import hf_hub_download

        # by its name, not by the commit: the cache then knows what the branch meant, for a time without a connection
        where: dict[str, Any] = {"revision": reference.revision, "cache_dir": self.folder, "endpoint": self.endpoint}
        if file.cached:
            return Path(hf_hub_download(reference.repo, file.name, **where))
        report.say(f"downloading {file.name} of {reference.repo}: {human_bytes(file.size)}")
        with report.stage(file.name, file.size, "B") as advance:
            return Path(hf_hub_download(reference.repo, file.name, tqdm_class=_bar(advance), **where))

    def _from_cache(self, reference: HubReference, report: Reporter, reason: Exception, pick: Pick) -> Path:
        """What an earlier download left of the model; BadFile where the cache does not have it all."""
        from huggingface_hub.errors import OfflineModeIsEnabled

        offline = isinstance(reason, OfflineModeIsEnabled)
        cause = "HF_HUB_OFFLINE is set" if offline else f"{self.name} cannot be reached ({reason})"
        cached = self._cached(reference)
        try:
            files = pick(reference, sorted(cached))
        except NothingSelected:
            advice = "unset it" if offline else "check the network, the proxy settings and HF_ENDPOINT"
            raise BadFile(
                f"{reference} is not in the cache {self.folder}, and {cause}; {advice}, and try again"
            ) from None
        report.say(f"{cause}: taking {files[0]} of {reference.repo} from the cache")
        return cached[files[0]]

    def _cached(self, reference: HubReference) -> dict[str, Path]:
        """Files of the revision in the cache by name."""
        from huggingface_hub import CacheNotFound, scan_cache_dir

        try:
            repos = scan_cache_dir(self.folder).repos
        except CacheNotFound:
            return {}
        return {
            file.file_path.relative_to(revision.snapshot_path).as_posix(): file.file_path
            for repo in repos
            if (repo.repo_type, repo.repo_id) == ("model", reference.repo)
            for revision in repo.revisions
            if reference.revision in (revision.commit_hash, *revision.refs)
            for file in revision.files
        }


def _bar(advance: Advance) -> type:
    """A progress bar for huggingface_hub that shows nothing itself and tells ``advance`` how many bytes came."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            advance(n or 0)

    return Bar


@contextmanager
def _errors_explained(reference: HubReference, hub: Hub) -> Iterator[None]:
    """The errors of huggingface_hub in words that say what to do."""
    from huggingface_hub import errors

    repo = reference.repo
    try:
        yield
    except errors.GatedRepoError:
        raise BadFile(f"{repo} is gated: accept its conditions on its page, {_TOKEN}") from None
    except errors.RepositoryNotFoundError:
        raise NothingSelected(f"there is no repository {repo} on {hub.name}; if it is private, {_TOKEN}") from None
    except errors.RevisionNotFoundError:
        raise NothingSelected(
            f"{repo} has no revision {reference.revision}; name a branch, a tag or a commit"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = _TOKEN if status in (401, 403) else "try again later"
        raise BadFile(f"{hub.name} answers {status} for {reference}: {advice}") from None
    except errors.HFValidationError as error:
        raise BadUsage(f"{reference}: {str(error).splitlines()[0]}") from None
    except (errors.HTTPError, OSError) as error:
        raise _broken(reference, hub, error) from None


def _broken(reference: HubReference, hub: Hub, error: Exception) -> QuantplanError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"no space left on the disk of {hub.folder}; free some, or set HF_HUB_CACHE to another disk")
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return BadFile(f"{reference} could not be downloaded from {hub.name}: {reason}; try again")
