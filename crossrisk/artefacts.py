"""What a folder of an artefact may hold: plain files and folders with names that a person can type, and no way out.

A SavedModel, a pending bundle or a version is copied, digested, renamed and served as a tree. A link in it would be
followed by one of these and not by another, and lead to bytes that no manifest speaks of. Digests are
`crossrisk.registry`'s, reading a SavedModel `models.bundle`'s.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from crossrisk.errors import PublishError


def refuse_links(folder: Path) -> None:
    """See to it that a folder, if it is there, is a folder of regular files and folders, whatever their depth.

    Raises:
        PublishError: it, or something in it, is a link, a pipe, a socket or a device, or has a name that does not
            print; names the first such thing.
    """
    if not folder.is_symlink() and not folder.exists():
        return
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise PublishError(f"{folder} is {_kind(folder)}, expected a folder; put the folder itself there")
    for path in sorted(folder.rglob("*")):  # which does not follow links
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise PublishError(
                f"{folder}: {str(path.relative_to(folder))!r} is {_kind(path)}, expected files and folders alone; it "
                "was not published by this tool: restore the folder from a backup"
            )
    refuse_foreign_names((path.relative_to(folder).as_posix() for path in folder.rglob("*")), where=str(folder))


def refuse_foreign_names(names: Iterable[str], *, where: str) -> None:
    """See to it that names of files, as a manifest lists them, lie below the folder that they are joined to.

    Args:
        names: relative, with `/` between folders.
        where: what lists them, for the message.

    Raises:
        PublishError: an absolute name, one with `..` or `\\`, or one that does not print; names the first such name.
    """
    for name in sorted(names):
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
            raise PublishError(
                f"{where} names a file {name!r}: expected a name below the folder, of signs that print; it was not "
                "published by this tool: restore it from a backup"
            )


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    kinds = {stat.S_IFLNK: "a link", stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
    return kinds.get(stat.S_IFMT(mode), "a socket or a device")
