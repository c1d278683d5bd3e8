"""The lock on a run directory: one master at a time, on any file system.

It rests on creating a file exclusively, not on flock, which NFS and Lustre may not have. A lock is
left behind by a crash; the next start takes it over if its holder is known to be dead.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from epg.errors import RunError, UserError
from epg.process.launcher import launched_size, launcher_is_gone
from epg.process.machine import boot_id
from epg.runs.files import append_durably, as_mistakes, read_bytes

NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What a file system says where this user may not write, which no later start would change."""
BEAT_SECONDS = 5.0
STALE_SECONDS = 120.0
"""A holder without a heartbeat for so long is dead."""
WATCH_SECONDS = 0.2
"""Between two looks at someone else's lock."""


class Lock:
    """A file that says who holds it, and whose age is its holder's last sign of life.

    A context manager: take it, keep it fresh, give it back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._me = {
            "host": platform.node(),
            "boot": boot_id(),
            "processes": str(Path("/proc/self/ns/pid").readlink()),  # where its id means it
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "start": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            "token": uuid.uuid4().hex,
        }
        self._over = threading.Event()

    def __enter__(self) -> Lock:
        """Make its folder if there is none, and take it.

        Raises `UserError` if someone alive holds it, or where this user may not write.
        """
        folder = self._path.parent
        with as_mistakes():
            folder.mkdir(parents=True, exist_ok=True)
        try:
            self._take()
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise
            raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
        threading.Thread(target=self._keep_fresh, daemon=True).start()
        return self

    def _take(self) -> None:
        watched: tuple[str, float] | None = None
        since = time.monotonic()
        while not self._create():
            try:
                content, beat = self._read(), self._path.stat().st_mtime
            except FileNotFoundError:
                if self._path.is_symlink():
                    raise UserError(f"{self._path}: a link to nothing; remove it") from None
                continue
            unchanged = watched == (content, beat)
            if self._is_dead(content, beat) or (
                unchanged and time.monotonic() - since > STALE_SECONDS  # whatever its time says
            ):
                self._take_away(content)
            elif watched is not None and watched[0] == content and not unchanged:
                holder = _parse(content)
                raise UserError(
                    f"{self._path.parent}: process {holder.get('pid')} on {holder.get('host')} is "
                    "at work here; wait for its end, or name another folder"
                )
            else:
                if watched is None:
                    print(f"{self._path}: is its holder alive? (2 min at most)", flush=True)
                if not unchanged:
                    watched, since = (content, beat), time.monotonic()
                time.sleep(WATCH_SECONDS)
        self._remove_leftovers()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        with suppress(OSError):  # a dead holder's is taken over; what went wrong before says more
            if self.is_mine():
                self._path.unlink()

    def check(self) -> None:
        """Raise `RunError` if another start has taken it over: nothing may be written any more."""
        if not self.is_mine():
            raise RunError(f"{self._path.parent}: another start has taken this run over")

    def is_mine(self) -> bool:
        """Whether it is held by this start still."""
        try:
            return _parse(self._read()).get("token") == self._me["token"]
        except FileNotFoundError:
            return False

    def _read(self) -> str:
        return read_bytes(self._path).decode(errors="replace")

    def _create(self) -> bool:
        """Whole or not at all, and only if there is none."""
        written = self._probe(json.dumps(self._me))
        try:
            os.link(written, self._path)
        except FileExistsError:
            return False
        finally:
            written.unlink(missing_ok=True)
        return True

    def _probe(self, content: str) -> Path:
        """A file of our own beside the lock."""
        path = self._path.with_name(f".{self._path.name}.{self._me['token']}")
        append_durably(path, content.encode())
        return path

    def _is_dead(self, content: str, beat: float) -> bool:
        them, me = _parse(content), self._me
        if all(them.get(k) == me[k] for k in ("host", "boot", "processes")):
            if not _is_running(them.get("pid")):
                return True
        elif them.get("host") == me["host"] and them.get("boot") != me["boot"]:
            return True
        if me["job"] and them.get("job") == me["job"] and them.get("start", 0) < me["start"]:
            return True  # an earlier start of this SLURM job
        probe = self._probe("")  # its time is by the clock of the file system, as the lock's is
        now = probe.stat().st_mtime
        probe.unlink()
        return now - beat > STALE_SECONDS

    def _take_away(self, content: str) -> None:
        """Remove what was judged dead, and nothing else."""
        aside = self._path.with_name(f".{self._path.name}.{self._me['token']}.stale")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if (
            read_bytes(aside).decode(errors="replace") != content
        ):  # another start was quicker, and this is its lock
            with suppress(FileExistsError):
                os.link(aside, self._path)
        aside.unlink()

    def _remove_leftovers(self) -> None:
        """Of starts that were killed, and not of those that wait."""
        for file in self._path.parent.glob(f".{self._path.name}.*"):
            with suppress(FileNotFoundError):
                # what is on its way out says who held the lock, not who takes it away
                words = b"" if file.suffix == ".stale" else read_bytes(file)
                if self._is_dead(words.decode(errors="replace"), file.stat().st_mtime):
                    file.unlink()

    def _keep_fresh(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            if launched_size() > 1 and launcher_is_gone():
                os._exit(1)  # whatever the master is at: a new one may be waiting
            with suppress(OSError):
                if self.is_mine():
                    os.utime(self._path)


def _parse(content: str) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_running(pid: object) -> bool:
    """Whether a process is there and more than a zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"
