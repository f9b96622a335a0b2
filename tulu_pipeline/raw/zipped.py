"""The files inside a zip archive, read one at a time and never unpacked to disk."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tulu_pipeline.errors import BadInput

_FIX = "fetch the whole archive again"


class ZipFolder:
    """A zip archive as a folder to read from; use as a context manager.

    Args:
        name: what people know it by.
        path: the archive.

    Raises:
        BadInput: from every method, where the archive or a member of it is damaged or not there.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise BadInput(f"not a zip archive: {error}", name, _FIX) from error

    def find(self, ending: str) -> str:
        """The one member called `ending`, in whatever folder; macOS keeps shadows of members, which do not count."""
        found = [
            member
            for member in self._zip.namelist()
            if f"/{member}".endswith(f"/{ending}") and not member.startswith("__MACOSX/")
        ]
        if len(found) != 1:
            raise BadInput(
                f"{len(found)} members called `{ending}` instead of one", self.name, "check the source's address"
            )
        return found[0]

    def __contains__(self, member: object) -> bool:
        return member in self._zip.NameToInfo

    def text(self, member: str) -> str:
        """The whole member; bytes that are not UTF-8 become lone surrogates."""
        return "\n".join(text for _, text in self.lines(member))

    def lines(self, member: str) -> Iterator[tuple[int, str]]:
        """Number and text of each line, streamed."""
        if member not in self:
            raise BadInput(f"no member `{member}`", self.name, "check the source's address")
        try:
            with io.TextIOWrapper(
                self._zip.open(member), encoding="utf-8-sig", errors="surrogateescape", newline="\n"
            ) as stream:
                for line, text in enumerate(stream, 1):
                    yield line, text.rstrip("\r\n")
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadInput(f"`{member}` is damaged: {error}", self.name, _FIX) from error

    def __enter__(self) -> ZipFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
