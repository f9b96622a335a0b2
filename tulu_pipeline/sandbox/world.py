"""The files a program sees: Python's library, read-only, and an empty folder of its own; nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tulu_pipeline.sandbox import kernel

SCRATCH = "/tmp"
SCRATCH_BYTES = 16 * 2**20
PACKAGES = "/packages"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
# Should a library lie in one of these itself, it is not had.
_NEVER = {Path("/"), Path("/tmp"), Path("/usr"), Path("/home"), Path("/root")}
_SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")


def library() -> list[str]:
    """Folders and files of the machine that Python's library is in, each once, none inside another."""
    with open("/proc/self/maps") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if ".so" in line}
    found = {Path(os.__file__).resolve().parent, *map(Path, _SYSTEM_LIBRARIES)}
    found |= {Path(path).resolve().parent for path in mapped if path.startswith("/")}
    whole = {path for path in found if path.is_dir() and not path.is_symlink()} - _NEVER
    return sorted(str(path) for path in whole if whole.isdisjoint(path.parents))


def links() -> dict[str, str]:
    """Those of the system's folders of libraries that are only links: path to what it says."""
    return {path: str(Path(path).readlink()) for path in _SYSTEM_LIBRARIES if Path(path).is_symlink()}


def enter(packages: Mapping[str, str]) -> None:
    """Leave the machine's files for good; this process's mount namespace and capabilities are its own.

    Args:
        packages: more folders, by their names in `PACKAGES`.

    Raises:
        OSError: the kernel refuses.
    """
    folders, linked = library(), links()
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    # A tmpfs over /tmp is seen by this namespace alone; in it the old root and the new one find their places.
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    for name in ("old", "new"):
        Path(SCRATCH, name).mkdir()
    kernel.pivot_root(SCRATCH, f"{SCRATCH}/old")
    os.chdir("/")
    kernel.mount("tmpfs", "/new", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
    for path in folders:
        _bind(f"/old{path}", f"/new{path}")
    for name, path in packages.items():
        _bind(f"/old{path}", f"/new{PACKAGES}/{name}")
    for path in DEVICES:
        Path("/new/dev").mkdir(exist_ok=True)
        Path(f"/new{path}").touch()
        kernel.mount(f"/old{path}", f"/new{path}", flags=kernel.MS_BIND)
    for path, target in linked.items():
        link = Path(f"/new{path}")
        if not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    Path(f"/new{SCRATCH}").mkdir()
    os.chdir("/new")
    kernel.pivot_root(".", ".")
    kernel.detach(".")
    os.chdir("/")
    kernel.make_read_only("/")


def mount_scratch() -> None:
    """An empty folder for one program, in a mount namespace of its own."""
    kernel.unshare(kernel.CLONE_NEWNS)
    options = f"size={SCRATCH_BYTES},nr_inodes=1024,mode=700"
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options)
    os.chdir(SCRATCH)


def _bind(source: str, target: str) -> None:
    Path(target).mkdir(parents=True, exist_ok=True)
    kernel.mount(source, target, flags=kernel.MS_BIND | kernel.MS_REC)


def without_ours() -> None:
    """Take the project out of what a program can import; what runs already goes on."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "tulu_pipeline"]:
        del sys.modules[name]
    ours = (str(Path(__file__).resolve().parents[2]), "/ours")
    sys.path[:] = [path for path in sys.path if path not in ours]
