"""Durable files: after a crash the old content stands or the new, never a part."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from epg.errors import ForeseenError, RunError, UserError

SEAL = b', "crc32": "'
TAKEN = (
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL
)  # fmt: skip
"""What is said where something else stands at a file's place: a folder, a link, a pipe."""


def write_durably(path: Path, data: bytes) -> None:
    """Write a file so that it survives a crash of the machine: temporary, fsync, rename, fsync.

    Raises OSError that names the file, as all here do.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    with _naming(path):
        try:
            _write(temporary, data, os.O_CREAT | os.O_TRUNC)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync(path.parent)


def append_durably(path: Path, data: bytes) -> None:
    """Append to a file, which is made if there is none; a crash may leave a part of `data`."""
    with _naming(path):
        _write(path, data, os.O_CREAT | os.O_APPEND)


def sync(path: Path) -> None:
    """Make the content of a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def as_mistakes() -> Iterator[None]:
    """Make what a file or folder refuses, before anything is written, a `UserError` that names it.

    A decorator, too.
    """
    try:
        yield
    except OSError as error:
        if not error.filename:
            raise
        raise UserError(f"{error.filename}: {error.strerror}") from None


def foreseen(error: OSError) -> ForeseenError:
    """What a file refuses while work is under way, in a line; it names the file."""
    kind = UserError if error.errno in TAKEN else RunError  # a full disk, mostly
    return kind(f"{error.filename}: {error.strerror}")


def open_file(path: Path) -> BinaryIO:
    """Open a file to read; what is none, such as a pipe that would be waited for, is an OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file", str(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """The content of a file, opened as by `open_file`."""
    with _naming(path), open_file(path) as file:
        return file.read()


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what writes that were cut short have left in a folder, of one file or of all."""
    for temporary in folder.glob(f".{name}.*.new"):
        temporary.unlink(missing_ok=True)


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty where there is none, or none that is whole."""
    try:
        data = orjson.loads(read_bytes(path))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def seal(entry: Mapping[str, Any]) -> bytes:
    """A line of JSON that ends with a checksum of itself; NumPy's arrays are lists, NaN is null."""
    text = orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY)
    return b'%b%b%08x"}\n' % (text[:-1], SEAL, zlib.crc32(text))


def unseal(line: bytes) -> dict[str, Any]:
    """What was sealed. Raises ValueError if a single bit of it has changed."""
    text, _, checksum = line.rpartition(SEAL)
    text += b"}"
    if checksum != b'%08x"}\n' % zlib.crc32(text):
        raise ValueError("does not match its checksum")
    entry = orjson.loads(text)
    if not isinstance(entry, dict):
        raise ValueError("is no JSON object")
    return entry


def _write(path: Path, data: bytes, flags: int) -> None:
    # no link is followed to a file elsewhere, no reader of a pipe waited for
    flags |= os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors name the file that was meant; a failed write names none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
