"""Users, interpreters, languages and machines that are less than one would wish.

As root, the tests of users become nobody first.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accidents.site import HERE, Site, check_same

Said = Any
"""What a process said: code, out, err."""
Run = Callable[..., Said]
Tensors = Callable[[Path], dict[str, bytes]]
NOBODY = 65534
BECOME_NOBODY = f"""\
import os
if os.getuid() == 0:
    os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
"""
SEE_PYTHON = """\
import ctypes, subprocess
if ctypes.CDLL(None, use_errno=True).unshare(0x20000):  # CLONE_NEWNS
    raise OSError(ctypes.get_errno(), "unshare")
subprocess.run(["sh", "-ec", '''
mount --make-rprivate /
mkdir -p {spare}
mount --bind {python} {spare}
mount -t tmpfs -o mode=755 tmpfs {hidden}
mkdir -p {python}
mount --move {spare} {python}
'''], check=True)
"""
"""In a view of the file system of its own, where Python is not in a folder that is root's alone."""


def hidden_by(path: Path) -> Path | None:
    """The outermost folder on the way to it that others may not pass."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None


class User:
    """Who may write nothing but `own`, and read nothing in `secret`; `theirs` is someone else's."""

    def __init__(self, epg: Run, folder: Path) -> None:
        self.epg, self.folder = epg, folder
        folder.chmod(0o755)
        self.own, self.theirs, self.secret = (folder / n for n in ("own", "theirs", "secret"))
        for place, mode in ((self.own, 0o777), (self.theirs, 0o555), (self.secret, 0o700)):
            place.mkdir()
            place.chmod(mode)
        if os.getuid() != 0:
            self.secret.chmod(0)
        python = Path(sys.base_prefix).resolve()
        hidden = hidden_by(python) if os.getuid() == 0 else None
        self.before = BECOME_NOBODY
        if hidden is not None:
            view = SEE_PYTHON.format(spare=folder / "spare", python=python, hidden=hidden)
            self.before = view + self.before

    def start(self, *arguments: str | Path, before: str = "", **environment: str) -> Said:
        here = {"HOME": str(self.own), "EPG_CACHE": "", "XDG_CACHE_HOME": ""}
        return self.epg(
            *arguments, folder=self.folder, before=self.before + before,
            environment=here | environment,
        )  # fmt: skip


@pytest.fixture
def user(epg: Run, tiny: Path) -> Iterator[User]:
    folder = Path(tempfile.mkdtemp(prefix="epg-user-"))  # pytest's own are root's alone
    user = User(epg, folder)
    (folder / "tiny.yaml").write_text(tiny.read_text())
    said = user.start("--version")
    if said.code:
        shutil.rmtree(folder)
        why = f"nobody cannot run Python here: {said.err.strip().splitlines()[-1]}"
        if os.environ.get("EPG_TESTS_NEED_USER"):
            pytest.fail(why)
        pytest.skip(why)
    yield user
    user.secret.chmod(0o700)
    shutil.rmtree(folder)


SHORT = ("lifetime.updates=1", "--lifetimes", "2", "--methods", "reinforce")
EVALUATE = ("evaluate", "--task", "point-goal", "--lifetimes", "2", "--updates", "1",
            "--methods", "ppo,random")  # fmt: skip
REFUSED: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "run of another": (
        ("train", "tiny.yaml", "--run", "theirs"), {},
        "theirs: cannot be written (Permission denied)",
    ),
    "run in a folder that cannot be read": (
        ("train", "tiny.yaml", "--run", "secret/run"), {}, "secret/run: Permission denied"
    ),
    "evaluation of another": (
        (*EVALUATE, "--out", "theirs"), {}, "theirs: cannot be written (Permission denied)"
    ),
    "evaluation in a folder that cannot be read": (
        (*EVALUATE, "--out", "secret/kept"), {}, "secret/kept: Permission denied"
    ),
    "a cache that cannot be read": (
        (*EVALUATE, "--out", "own/kept"), {"EPG_CACHE": "secret"},
        "secret/tuned.yaml: cannot be read (Permission denied); EPG_CACHE can name another folder",
    ),
    "a cache that cannot be written": (
        ("tune", "tiny.yaml", *SHORT), {"EPG_CACHE": "theirs"},
        "theirs: cannot be written (Permission denied)",
    ),
    "a home of another": (
        ("tune", "tiny.yaml", *SHORT), {"HOME": "theirs"}, "theirs/.cache: Permission denied"
    ),
    "winners of another": (
        ("tune", "tiny.yaml", *SHORT, "--out", "theirs/tuned.yaml"), {},
        "theirs: cannot be written (Permission denied); found for point-goal: ",
    ),
}  # fmt: skip
IN_MAKE_TEST = ("run of another", "a cache that cannot be read")


@pytest.mark.parametrize(
    "case",
    [n if n in IN_MAKE_TEST else pytest.param(n, marks=pytest.mark.soak) for n in REFUSED],
)
def test_what_a_user_may_not_is_one_line(user: User, case: str) -> None:
    arguments, environment, words = REFUSED[case]
    said = user.start(*arguments, **environment)
    assert said.code == 2 and said.err.startswith(f"epg: {words}"), said
    assert said.err.count("\n") == 1
    assert not list(user.theirs.iterdir())


def test_no_home_is_needed(user: User, finished: Path, tensors: Tensors) -> None:
    said = user.start("train", "tiny.yaml", "--run", "own/run", HOME="/nonexistent")
    assert (said.code, said.err) == (0, ""), said
    assert (user.own / "run" / "DONE").stat().st_uid != 0 or os.getuid() == NOBODY
    for name in ("best.safetensors", "loss.safetensors"):
        assert tensors(user.own / "run" / name) == tensors(finished / name)


@pytest.mark.soak
def test_a_run_of_another_hides_no_other(user: User, finished: Path) -> None:
    shutil.copytree(finished, user.own / "mine")
    shutil.copytree(finished, user.own / "not-mine")
    (user.own / "not-mine").chmod(0 if os.getuid() else 0o700)
    said = user.start("status", "own")
    (user.own / "not-mine").chmod(0o700)
    assert said.code == 0 and "own/mine" in said.out and "done" in said.out, said


@pytest.mark.soak
def test_ranks_are_not_started_again_where_they_may_not_write(user: User) -> None:
    said = user.start("train", "tiny.yaml", "--run", "theirs", "--ranks", "2")
    assert said.code == 2 and "again in" not in said.err, said
    assert "epg: theirs: cannot be written (Permission denied)" in said.err


CLOSE = """\
import os
lived = []
write = os.write
def watched(descriptor, data):
    if os.readlink(f"/proc/self/fd/{{descriptor}}").endswith("journal.jsonl"):
        lived.append(descriptor)
        if len(lived) == {units}:
            for folder, _, _ in os.walk("own/run"):
                os.chmod(folder, 0o555)
    return write(descriptor, data)
os.write = watched
"""


def test_a_run_directory_that_becomes_read_only(
    user: User, finished: Path, tensors: Tensors
) -> None:
    """It ends at the next file that is new; with the rights back, it goes on."""
    start = ("train", "tiny.yaml", "--run", "own/run")
    said = user.start(*start, before=CLOSE.format(units=3))
    assert said.code == 1 and said.err.count("\n") == 1, said
    assert said.err.startswith("epg: own/run/") and said.err.endswith(": Permission denied\n")
    refused = user.start(*start)
    assert refused.code == 2 and "own/run: cannot be written" in refused.err, refused
    for folder, _, _ in os.walk(user.own / "run"):
        Path(folder).chmod(0o755)
    again = user.start(*start)
    assert (again.code, again.err) == (0, ""), again
    for name in ("best.safetensors", "loss.safetensors"):
        assert tensors(user.own / "run" / name) == tensors(finished / name)


# Interpreters and languages


@pytest.fixture(scope="session")
def german(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose numbers have a comma."""
    folder = tmp_path_factory.mktemp("locales")
    path = shutil.which("localedef") or "/usr/bin/localedef"
    name = "de_DE.UTF-8"
    try:
        subprocess.run(
            [path, "-i", "de_DE", "-f", "UTF-8", folder / name], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"no German locale can be made here (Debian's locales): {error}"
        if os.environ.get("EPG_TESTS_NEED_LOCALES"):
            pytest.fail(why)
        pytest.skip(why)
    return {"LOCPATH": str(folder), "LC_ALL": name}


COMMA = """\
import locale
locale.setlocale(locale.LC_ALL, "")
assert locale.str(1.5) == "1,5"
"""


def test_no_comma_in_a_number(
    epg: Run, tiny: Path, tmp_path: Path, finished: Path, tensors: Tensors, german: dict[str, str]
) -> None:
    """Even in a program that has chosen its user's language, for C libraries as well."""
    start = ("train", tiny, "--run", "run")
    said = epg(*start, folder=tmp_path, before=COMMA, environment=german)
    assert (said.code, said.err) == (0, ""), said
    assert tensors(tmp_path / "run/best.safetensors") == tensors(finished / "best.safetensors")
    ours, theirs = ((run / "metrics.csv").read_text() for run in (tmp_path / "run", finished))
    assert [line.count(",") for line in ours.splitlines()] == [
        line.count(",") for line in theirs.splitlines()
    ]
    assert ours.splitlines()[1].split(",")[:3] == theirs.splitlines()[1].split(",")[:3]


ODD: dict[str, tuple[list[str], dict[str, str]]] = {
    "without assertions": (["-O"], {}),
    "the language C": ([], {"LANG": "C", "LC_ALL": "C"}),
    "strictly ASCII": ([], {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "ASCII for all output": ([], {"PYTHONIOENCODING": "ascii"}),
}


@pytest.mark.soak
@pytest.mark.parametrize("case", ODD)
def test_an_odd_interpreter(
    site: Site, tiny: Path, finished: Path, tensors: Tensors, case: str
) -> None:
    options, environment = ODD[case]
    (site.folder / "φ.yaml").write_text(f"# σ, φ and ε\n{tiny.read_text()}", encoding="utf-8")
    (site.folder / "φ.yaml").rename(site.folder / "config.yaml")
    python = ("python", *options, "-m", "epg")
    commands = (
        ("train", "config.yaml", "--run", "run"),
        ("evaluate", "run/best.safetensors", "--task", "point-goal", "--lifetimes", "2"),
        ("report", "run", "--lifetimes", "2"),
        ("status", "run"),
    )
    for arguments in commands:
        process = site.command(*python, *arguments, environment=environment)
        assert process.end() == 0 and "Traceback" not in process.said, process.said
    for name in ("best.safetensors", "loss.safetensors"):
        assert tensors(site.run / name) == tensors(finished / name)


def test_names_that_are_not_ascii_need_utf_8(site: Site) -> None:
    process = site.command(
        "python", "-m", "epg", "status", "rün", environment=ODD["strictly ASCII"][1]
    )
    assert process.end() == 2
    assert process.said == (
        "epg: names that are not ASCII need UTF-8, found ascii: set LC_ALL=C.UTF-8\n"
    )


# Memory and ranks


LITTLE = """\
import resource
from pathlib import Path
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + {more}
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
"""


def test_too_little_memory_is_one_line_and_with_more_it_goes_on(
    epg: Run, tiny: Path, tmp_path: Path, tensors: Tensors
) -> None:
    """For a pair that takes a gigabyte."""
    path = f"import sys; sys.path.insert(0, {HERE!r})\n"
    eats = {"TROUBLE": '{"1": "eat"}'}
    start = ("train", tiny, "task=trouble:Trouble", "--run", "run")
    little = path + LITTLE.format(more=200_000_000)
    said = epg(*start, folder=tmp_path, before=little, environment=eats)
    assert said.code == 1 and said.err.count("\n") == 1, said
    assert "MemoryError" in said.out and "2 of 4 members of step 1 are invalid" in said.err, said
    for run in ("run", "twin"):
        again = epg(*start[:-1], run, folder=tmp_path, before=path, environment=eats)
        assert (again.code, again.err) == (0, ""), again
    for name in ("best.safetensors", "loss.safetensors"):
        assert tensors(tmp_path / "run" / name) == tensors(tmp_path / "twin" / name)


@pytest.mark.soak
@pytest.mark.parametrize("gigabytes", [0.7, 0.8, 0.9, 1.0])
def test_memory_that_imports_or_the_start_use_up_costs_nothing(
    site: Site, tiny: Path, finished: Path, tensors: Tensors, gigabytes: float
) -> None:
    (site.folder / "config.yaml").write_text(tiny.read_text())
    limit = f'ulimit -v {gigabytes * 1e6:.0f}; exec "$0" "$@"'
    process = site.start(launcher=("bash", "-c", limit))
    if process.end() != 0:
        again = site.start()
        assert again.end() == 0, again.said
    for name in ("best.safetensors", "loss.safetensors"):
        assert tensors(site.run / name) == tensors(finished / name)


@pytest.mark.soak
def test_as_many_ranks_as_memory_holds(site: Site, undisturbed: Path) -> None:
    """More than there are units, too: twenty-four workers, two processes each, and a master."""
    front = site.start("--ranks", "25", "farm.least_deadline=300")
    assert front.end() == 0, front.said
    assert "again in" not in front.said and "on 24 workers" in front.said
    check_same(site.run, undisturbed)
