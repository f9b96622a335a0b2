"""A checkpoint becomes one commit of a hub repository: whole or not at all, and checked against what was sent.

A new repository stays private until its commit is there and is what was sent; one that is there already is made
private, or gated, before anything comes into it, and opened only afterwards. Files that the hub has already are not
sent again, so the same call goes on where one was cut off. Large files go by Git LFS, which every hub speaks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tulu_pipeline.artifacts.manifest import FileEntry
from tulu_pipeline.artifacts.stage import ReportProgress, no_progress
from tulu_pipeline.errors import BadInput, MissingOnMachine, StageFailed
from tulu_pipeline.export.hub_answers import AGAIN, patiently
from tulu_pipeline.export.hub_files import Meter, Reader, from_disk, from_memory, git_sha1

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

CARD = "README.md"
MARK = "tulu.json"
SCHEMA_VERSION = 1
_WRITTEN_BY = "tulu publish"
_HUBS_OWN = frozenset({".gitattributes"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What is to be published.

    Attributes:
        repo: `owner/name`.
        folder: holds `files`.
        files: the checkpoint's, with the hashes under which they were made.
        card: the model card.
        card_is_own: somebody wrote it for this repository, so it may replace one that was edited there.
        description: of the artifact; what `tulu.json` holds.
        message: the commit's first line. body: the rest.
        gated: whoever wants the files has to ask on the hub, which lets them in.
        private: leave the repository private.
    """

    repo: str
    folder: Path
    files: tuple[FileEntry, ...]
    card: str
    description: dict[str, Any]
    message: str
    body: str
    card_is_own: bool = False
    gated: bool = True
    private: bool = False

    def sizes(self) -> dict[str, int]:
        """Every file of the commit with its size in bytes."""
        return {path: size for path, (size, _) in self.hashes().items()}

    def contents(self) -> dict[str, bytes]:
        """The files that are written for the hub: the card, and who wrote the rest."""
        card = self.card.encode()
        mark = {
            "schema_version": SCHEMA_VERSION,
            "written_by": _WRITTEN_BY,
            **self.description,
            "files": [
                {"path": entry.path, "size_bytes": entry.size_bytes, "sha256": entry.sha256} for entry in self.files
            ],
            "card_git_sha1": git_sha1(card),
        }
        return {CARD: card, MARK: (json.dumps(mark, indent=1, ensure_ascii=False) + "\n").encode()}

    def hashes(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of every file of the commit."""
        made = {path: (len(data), hashlib.sha256(data).hexdigest()) for path, data in self.contents().items()}
        return {entry.path: (entry.size_bytes, entry.sha256) for entry in self.files} | made


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What became of it.

    Attributes:
        address: of the repository, for people.
        commit: 40 hex digits.
        sent: paths that were sent; the others were there.
        gated, private: as the hub says they are now.
    """

    address: str
    commit: str
    sent: tuple[str, ...]
    gated: bool
    private: bool


def publish(
    publication: Publication, *, endpoint: str, token: str | None, progress: ReportProgress = no_progress
) -> Published:
    """Bring a checkpoint and its card to a hub.

    Args:
        publication: what.
        endpoint: base URL of the hub.
        token: one that may write there.
        progress: bytes sent.

    Raises:
        MissingOnMachine: `huggingface_hub` is not installed.
        BadInput: there is no token, the hub refuses it or the repository's name, or the repository holds what no
            `tulu publish` wrote, or a card that was edited there.
        Unreachable: the hub did not answer, or only with errors that pass, in several tries.
        StageFailed: the hub refuses something else, or holds other files than were sent.
    """
    if find_spec("huggingface_hub") is None:
        raise MissingOnMachine("`huggingface_hub` is not installed", "publish", "`pip install 'tulu-pipeline[train]'`")
    if not token:
        raise BadInput("no token for the hub", "HF_TOKEN", "set HF_TOKEN to a token that may write there")
    with _quiet():
        return _Upload(publication, endpoint, token, progress).run()


@dataclass(slots=True)
class _Upload:
    publication: Publication
    endpoint: str
    token: str
    progress: ReportProgress
    api: HfApi = field(init=False)
    sent: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        from huggingface_hub import HfApi

        self.api = HfApi(endpoint=self.endpoint, token=self.token, library_name="tulu-pipeline")

    def run(self) -> Published:
        repo = self.publication.repo
        self._patiently(self._ensure_repository)
        commit = self._patiently(self._bring)
        self._patiently(lambda: self._compare(commit))
        if not self.publication.private:
            gated: Any = "auto" if self.publication.gated else False
            self._patiently(lambda: self.api.update_repo_settings(repo, gated=gated, private=False))
        elif self.publication.gated:
            self._patiently(lambda: self.api.update_repo_settings(repo, gated="auto"))
        info = self._patiently(lambda: self.api.model_info(repo))
        gated, private = bool(info.gated), bool(info.private)
        if (gated, private) != (self.publication.gated, self.publication.private):
            raise self._left(gated, private)
        return Published(
            address=self._address(), commit=commit, sent=tuple(sorted(self.sent)), gated=gated, private=private
        )

    def _address(self) -> str:
        return f"{self.endpoint}/{self.publication.repo}"

    def _ensure_repository(self) -> None:
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            self.api.model_info(self.publication.repo)
        except RepositoryNotFoundError:
            self.api.create_repo(self.publication.repo, private=True, exist_ok=True)

    def _bring(self) -> str:
        """One commit with all that is missing or differs; none where nothing does. Returns the commit."""
        from huggingface_hub import CommitOperationDelete

        head = self.api.model_info(self.publication.repo).sha
        there = self._there(head)
        earlier = self._refuse_foreign(there, head)
        contents = self.publication.contents()
        missing = {path for path, hashes in self.publication.hashes().items() if not self._same(there, path, hashes)}
        stale = sorted(earlier & there.keys() - self.publication.sizes().keys())
        if not missing and not stale:
            assert head is not None, "a repository with files has a commit"
            return head
        self._close()
        with ExitStack() as stack:
            meter = Meter(self.publication.repo, self.publication.sizes(), missing, self.progress)
            additions: list[CommitOperationAdd] = [
                from_memory(path, contents[path]) for path in sorted(missing & contents.keys())
            ]
            for entry in self.publication.files:
                if entry.path in missing:
                    reader = Reader(self.publication.folder / entry.path, entry.path, meter)
                    additions.append(from_disk(entry, stack.enter_context(reader)))
            done = self.api.create_commit(
                self.publication.repo,
                operations=[*additions, *(CommitOperationDelete(path_in_repo=path) for path in stale)],
                commit_message=self.publication.message,
                commit_description=self.publication.body,
                parent_commit=head,
            )
            self.sent |= missing
            meter.finish()
        return str(done.oid)

    def _close(self) -> None:
        """Before files come into a repository that everybody sees: as private and gated as it is to be."""
        asked, info = self.publication, self.api.model_info(self.publication.repo)
        if info.private or (bool(info.gated) >= asked.gated and not asked.private):
            return
        gated: Any = "auto" if asked.gated else None  # None leaves it as it is
        self.api.update_repo_settings(asked.repo, gated=gated, private=asked.private or None)
        info = self.api.model_info(asked.repo)
        if bool(info.gated) < asked.gated or bool(info.private) < asked.private:
            raise self._left(bool(info.gated), bool(info.private))

    def _left(self, gated: bool, private: bool) -> StageFailed:
        said = f"{'private' if private else 'public'} and {'gated' if gated else 'open'}"
        return StageFailed(f"the hub leaves the repository {said}", self._address(), "change it in its settings")

    def _there(self, commit: str | None) -> dict[str, RepoFile]:
        from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
        from huggingface_hub.hf_api import RepoFile

        if commit is None:
            return {}
        try:
            listed = list(self.api.list_repo_tree(self.publication.repo, recursive=True, revision=commit))
        except (EntryNotFoundError, RevisionNotFoundError):  # nothing was ever committed
            return {}
        return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}

    def _refuse_foreign(self, there: dict[str, RepoFile], head: str | None) -> set[str]:
        """The files that an earlier call wrote; an error for a repository that holds something else."""
        if not there.keys() - _HUBS_OWN:
            return set()
        mark = self._mark(head) if MARK in there else {}
        if mark.get("written_by") != _WRITTEN_BY:
            raise BadInput(
                f"`{self.publication.repo}` holds files that `tulu publish` did not write",
                self._address(),
                "name another repository with --to",
            )
        known = {mark.get("card_git_sha1"), git_sha1(self.publication.card.encode())}
        if CARD in there and there[CARD].blob_id not in known and not self.publication.card_is_own:
            raise BadInput(
                f"`{CARD}` was edited on the hub",
                self._address(),
                "give the text that you want with --card FILE, or restore the card there",
            )
        return {str(entry["path"]) for entry in mark["files"]}

    def _mark(self, commit: str | None) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = self.api.hf_hub_download(self.publication.repo, MARK, revision=commit, local_dir=folder)
            try:
                found = json.loads(Path(path).read_text(encoding="utf-8"))
                return dict(found) if isinstance(found["files"], list) else {}
            except (ValueError, KeyError, TypeError):
                return {}

    def _same(self, there: dict[str, RepoFile], path: str, hashes: tuple[int, str]) -> bool:
        """Whether the hub has this file: by sha256 where it keeps it apart, else as Git names it."""
        size_bytes, sha256 = hashes
        file = there.get(path)
        if file is None or file.size != size_bytes:
            return False
        if file.lfs is not None:
            return bool(file.lfs.sha256 == sha256)
        contents = self.publication.contents()
        data = contents[path] if path in contents else (self.publication.folder / path).read_bytes()
        return bool(file.blob_id == git_sha1(data))

    def _compare(self, commit: str) -> None:
        there = self._there(commit)
        wrong = [path for path, hashes in self.publication.hashes().items() if not self._same(there, path, hashes)]
        if wrong:
            raise StageFailed(f"the hub holds other bytes than were sent: {', '.join(wrong)}", self._address(), AGAIN)

    def _patiently(self, ask: Callable[[], T]) -> T:
        return patiently(ask, self.publication.repo, self._address())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own bars and log lines: signed addresses stand in them, and we tell of each retry."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    verbosity, silent = hub_logging.get_verbosity(), are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hub_logging.set_verbosity(verbosity)
        if not silent:
            enable_progress_bars()
