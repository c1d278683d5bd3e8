"""The command line: commands, no logic. Heavy imports stand inside the commands."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from epg.errors import ForeseenError, Interruption, UserError, printable
from epg.process import shipped
from epg.process.ending import end
from epg.process.launcher import launched_rank, launched_size
from epg.process.machine import memory_limit
from epg.process.signals import default_handlers, install_end_handlers, install_save_handler

LONGEST_NAME, LONGEST_PATH = 255, 4000
"""Bytes that file systems take: of one name in a path, and of all."""

app = typer.Typer(
    help="Learn how reinforcement-learning agents should learn, and see what it is worth.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
UsageError: Any = typer.BadParameter.__bases__[0]
"""click's, or that of the click which newer typers bring along"""
LONGEST_LINE = 1000
"""Characters that a complaint has at most; files may hold longer names."""
MANY = ("train", "evaluate", "tune", "bench")
"""The commands that are work for many ranks."""
ConfigFile = Annotated[
    Path,
    typer.Argument(
        help="YAML file with the settings of the run, or the name of one that comes with epg: "
        f"{shipped.names('configuration')}."
    ),
]
StartFrom = Annotated[
    Path | None, typer.Option("--from", help="A saved loss to start from, a file or a name.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line.")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run the code of its maker's own classes that a file names."),
]


@app.command()
def train(
    config: ConfigFile,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="Settings to change.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run directory, with --seeds the folder of theirs; runs/NAME-OF-CONFIG."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="A run for each, one after another: 0-9 or 1,5,7.")
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=2, help="Start mpirun with so many ranks, one the master.")
    ] = None,
    start_from: StartFrom = None,
    max_relaunches: Annotated[
        int, typer.Option(min=0, help="--ranks: how many crashes without a finished chunk end it.")
    ] = 10,
    launcher: Annotated[
        str, typer.Option(help='--ranks: what starts them; "srun --mpi=pmi2" inside a SLURM job.')
    ] = "mpirun",
) -> None:
    """Train what is learned across lifetimes; the same command again goes on where it stopped.

    Example: epg train quickstart --ranks 3 steps=50
    """
    run, overrides = run or Path("runs") / config.stem, overrides or []
    runs = {run: overrides}
    if seeds is not None:
        from epg.cluster.slurm import seed_runs

        if launched_size() > 1:
            raise UserError(f"--seeds: found {seeds}, but mpirun started this; give it --ranks")
        found = seed_runs(run, seeds, overrides)
        runs = {folder: [*overrides, f"seed={seed}"] for seed, folder in found.items()}
    for folder, settings in runs.items():
        if ranks is not None and launched_size() == 1:
            from epg.cluster.supervisor import supervise
            from epg.training.loop import check

            checked = check(config, settings).config  # before any rank starts
            arguments = ["train", str(config), *settings, "--run", str(folder)]
            arguments += [] if start_from is None else ["--from", str(start_from)]
            code = supervise(folder, ranks, arguments, max_relaunches, launcher, checked.farm.grace)
            if code:
                raise typer.Exit(code)
            continue
        from epg.farm.worker import failing_together

        with failing_together():
            from epg.config import load
            from epg.training.loop import train as run_training

            run_training(load(config, settings), folder, start_from)


@app.command()
def submit(
    config: ConfigFile,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="Settings to change.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run directory, with --seeds the folder of theirs; runs/NAME-OF-CONFIG."),
    ] = None,
    start_from: StartFrom = None,
    tasks: Annotated[
        int | None, typer.Option(help="Number of ranks; a master and a worker a chunk if left out.")
    ] = None,
    nodes: Annotated[str | None, typer.Option(help="Number of nodes, as for sbatch.")] = None,
    cpus: Annotated[
        int | None, typer.Option(min=1, help="Cores of each rank; `threads` if left out.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs of each node.")] = None,
    time: Annotated[str | None, typer.Option(help="Time limit, as for sbatch: 24:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="Partition, as for sbatch.")] = None,
    account: Annotated[str | None, typer.Option(help="Account, as for sbatch.")] = None,
    constraint: Annotated[str | None, typer.Option(help="Type of node, as for sbatch.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the job; the run's if left out.")
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Any other option of sbatch: --sbatch=--qos=long.")
    ] = None,
    setup: Annotated[
        list[str] | None, typer.Option(help='A line of shell to begin with: "module load mpich".')
    ] = None,
    launcher: Annotated[
        str, typer.Option(help='What starts the ranks: mpirun, or such as "srun --mpi=pmi2".')
    ] = "mpirun",
    seeds: Annotated[str | None, typer.Option(help="A job array: 0-9, 1,5,7, 0-99%4.")] = None,
    max_requeues: Annotated[
        int, typer.Option(min=0, help="How often a job may go back into the queue to go on.")
    ] = 100,
    print_: Annotated[
        bool, typer.Option("--print", help="Show the script, submit nothing.")
    ] = False,
) -> None:
    """Queue a run on a SLURM cluster, after a look at what the queue would find too late.

    Example: epg submit random-hopper --tasks 3 --time 24:00:00 --partition cpu
    """
    from epg.cluster import slurm

    options = {
        "job-name": name, "nodes": nodes, "ntasks": tasks, "cpus-per-task": cpus,
        "gpus-per-node": gpus, "time": time, "partition": partition, "account": account,
        "constraint": constraint,
    }  # fmt: skip
    job = slurm.Job(
        config=config,
        overrides=overrides or [],
        run=run or Path("runs") / config.stem,
        start_from=start_from,
        launcher=launcher,
        setup=setup or [],
        seeds=seeds,
        max_requeues=max_requeues,
        directives={name: str(value) for name, value in options.items() if value is not None}
        | dict(slurm.parse_directive(text) for text in sbatch or []),
    )
    slurm.submit(job, sys.argv[1:], print_)


@app.command()
def status(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, or folders of them; all in runs/ if left out."),
    ] = None,
    json_: Json = False,
) -> None:
    """Where runs are: generation, fitness, time left, last sign of life, job.

    Example: epg status runs/random-hopper
    """
    from epg.cluster.status import read_status, table

    found = read_status(runs or [])
    _show(table(found))
    if json_:
        print(json.dumps({"runs": [asdict(status) for status in found]}))


@app.command()
def evaluate(
    losses: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Saved files, *.safetensors, or names of losses that come with epg: "
            f"{shipped.names('loss')}; without any, methods alone."
        ),
    ] = None,
    *,
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="Task as in a configuration; of a list, or repeated, each one; that of the first "
            "file's training if left out."
        ),
    ] = None,
    lifetimes: Annotated[int, typer.Option(min=2, help="Held-out lifetimes of each method.")] = 32,
    updates: Annotated[
        int | None,
        typer.Option(min=1, help="Updates of a lifetime; as in the first file's training, or 128."),
    ] = None,
    hidden: Annotated[
        str | None, typer.Option(help="Units of the agents' layers, as 64,64; as in training.")
    ] = None,
    activation: Annotated[
        str | None,
        typer.Option(help="Activation of the agents' layers: tanh or relu; as in training."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Learning rate of those that learn by a file; as in its training."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Weight of PPO; as at the end of training if left out."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "--baselines",
            help="Names as `epg methods` lists them; untrained: what a file's training began with; "
            "blind: its agents without reward; fixed-policy: one that never learns, by epg tune; "
            "pretrained: PPO from there. If left out: ppo, random, blind and what of the last two "
            "is known.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of held-out MDPs and all else.")] = 0,
    out: Annotated[
        Path, typer.Option(help="Folder for tables, pictures and raw returns, new or interrupted.")
    ] = Path("evaluation"),
    ranks: Annotated[
        int | None, typer.Option(min=2, help="Start mpirun with so many ranks, one the master.")
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="MetaGenRL's table 1 beside the losses' returns.")
    ] = False,
    trust: Trust = False,
    json_: Json = False,
) -> None:
    """Compare ways of learning, saved or made by hand, on MDPs that training never saw.

    The same command again goes on where it stopped; several tasks are crossed with all files.

    Example: epg evaluate runs/quickstart/best.safetensors --lifetimes 64
    """
    if ranks is not None and launched_size() == 1:
        _start_ranks(ranks)
    from epg.farm.worker import failing_together

    with failing_together():
        from epg.evaluation.evaluate import evaluate as run_evaluation
        from epg.tasks import parts_of

        result = run_evaluation(
            losses or [],
            task=[part for text in task or () for part in parts_of(_spec("--task", text))],
            lifetimes=lifetimes,
            updates=updates,
            hidden=_sizes("--hidden", hidden) if hidden is not None else None,
            activation=activation,
            learning_rate=learning_rate,
            alpha=alpha,
            methods=None if methods is None else _names(methods),
            trust=trust,
            seed=seed,
            out=out,
        )
    if result is not None:
        _show(result.table(published))
        if json_:
            print(json.dumps(result.plain()))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory, or a folder with its seeds.")],
    lifetimes: Annotated[
        int,
        typer.Option(
            min=2, help="Lifetimes of each method, if its best loss was not evaluated yet."
        ),
    ] = 32,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            "--baselines",
            help="Names as for epg evaluate, if its best loss was not evaluated yet.",
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """A page about a run, or seeds of one: verdict, curves, table, health; evaluates if needed.

    Example: epg report runs/quickstart
    """
    from epg.evaluation.report import report as write_report

    chosen = None if methods is None else _names(methods)
    print(f"written: {write_report(run, lifetimes, chosen, trust)}")


@app.command()
def inspect(
    loss: Annotated[
        Path,
        typer.Argument(
            help="A saved loss, *.safetensors, or the name of one that comes with epg: "
            f"{shipped.names('loss')}."
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(help="Task as in a configuration; that of its training if left out."),
    ] = None,
    lifetimes: Annotated[int, typer.Option(min=2, help="Number of agents to watch.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of their MDPs and all else.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for numbers and picture.")] = Path("anatomy"),
    trust: Trust = False,
    json_: Json = False,
) -> None:
    """What a loss has learned: its gradient beside PPO's, and what it hangs on; of LPG's rule, what
    predictions have come to mean.

    Example: epg inspect quickstart
    """
    from epg.evaluation.inspect import inspect_into

    found = inspect_into(out, loss, _spec("--task", task) if task else "", lifetimes, seed, trust)
    _show(f"{found.table()}\nwritten to {out}")
    if json_:
        print(json.dumps(found.plain()))


@app.command()
def tune(
    config: ConfigFile,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key.sub=value]...", help="Settings to change.")
    ] = None,
    lifetimes: Annotated[int, typer.Option(min=2, help="Lifetimes for each setting.")] = 32,
    out: Annotated[
        Path | None,
        typer.Option(help="File that the winners join; one in the user's cache if left out."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Names, such as ppo,dpo, or fixed-policy; hand-made losses if left out."),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            help="Only the five best of the nearest budget that was tuned, for this budget."
        ),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10**12,
            help="Environment steps for fixed-policy; if left out, as many as the "
            "configuration's own training takes.",
        ),
    ] = None,
    ranks: Annotated[
        int | None, typer.Option(min=2, help="Start mpirun with so many ranks, one the master.")
    ] = None,
) -> None:
    """Search the settings of hand-made methods on training MDPs, and keep the winners.

    A coarse grid, then what is next to its best three, then the five best on fresh lives; for
    fixed-policy, a policy that never learns is evolved. The same command again goes on where it
    stopped.

    Example: epg tune quickstart
    """
    if ranks is not None and launched_size() == 1:
        _start_ranks(ranks)
    from epg.farm.worker import failing_together

    with failing_together():
        from epg.config import load
        from epg.evaluation.policies import FIXED
        from epg.evaluation.tune import tune as run_tuning
        from epg.training.policies import evolve_policies

        chosen = None if methods is None else _names(methods)
        loaded = load(config, overrides or [])
        searched = None if chosen is None else [name for name in chosen if name != FIXED]
        fixed = chosen is not None and FIXED in chosen
        if chosen == ():
            raise UserError("--methods: found none, expected a name at least")
        if steps is not None and not fixed:
            raise UserError(f"--steps: is for {FIXED} alone, which --methods does not name")
        if again and fixed:
            raise UserError(f"--again: is for settings, {FIXED} has none")
        if searched is None or searched:
            run_tuning(loaded, lifetimes, out, searched, again)
        if fixed:
            evolve_policies(loaded, steps)


@app.command()
def methods(json_: Json = False) -> None:
    """Every way of learning: what it learns, how, for which agents, its paper.

    Example: epg methods
    """
    from epg.evaluation.catalogue import catalogue, table

    found = catalogue()
    print(table(found))
    if json_:
        print(json.dumps({"methods": [asdict(each) for each in found]}))


@app.command()
def tasks(
    task: Annotated[
        list[str] | None, typer.Argument(help="Tasks as in a configuration; all names if left out.")
    ] = None,
    json_: Json = False,
) -> None:
    """Every task distribution: sizes, horizon, what varies and over which range.

    Example: epg tasks '{name: random-hopper, mass: [0.9, 1.1]}' gym:Pendulum-v1
    """
    from epg.tasks import OTHERS, describe, make, names, plain

    found: list[dict[str, Any]] = []
    for text in task or names():
        try:
            made = make(_spec("task", text))
        except UserError as error:
            if task:
                raise
            print(f"{text}: not here: {error}")
            found.append({"name": text, "missing": str(error)})
        else:
            print(describe(made))
            found.append(plain(made))
    if not task:
        print(OTHERS)
    if json_:
        print(json.dumps({"tasks": found}))


@app.command()
def bench(
    task: Annotated[str, typer.Option(help="Task as in a configuration; simulated by MuJoCo.")] = (
        "dir-hopper"
    ),
    lifetimes: Annotated[
        str, typer.Option(help="Numbers of lifetimes that live together.")
    ] = "1,8,64,256",
    threads: Annotated[int, typer.Option(min=1, help="Number of torch's threads.")] = 1,
    farm: Annotated[bool, typer.Option("--farm", help="Measure the farm alone.")] = False,
    workers: Annotated[
        int, typer.Option(min=2, help="--farm: number of simulated workers.")
    ] = 1024,
    pairs: Annotated[
        int, typer.Option(min=1, help="--farm: number of chunks of a generation.")
    ] = 4096,
    seconds: Annotated[
        float, typer.Option(min=0, help="--farm: seconds that a chunk takes.")
    ] = 1.0,
    generations: Annotated[
        int, typer.Option(min=1, help="--farm: number of generations to measure.")
    ] = 6,
    json_: Json = False,
) -> None:
    """What this machine gives: lifetimes over the limit of physics, or the farm without lifetimes.

    Example: epg bench --task half-cheetah --lifetimes 64
    """
    if farm:
        from epg.bench.farm import PLAYERS, Load, run

        if workers % PLAYERS:
            raise UserError(f"--workers: found {workers}, allowed: a multiple of {PLAYERS}")
        if launched_size() == 1:
            _start_ranks(1 + PLAYERS)
        found = run(Load(workers, pairs, seconds, generations))
        if found is not None:
            print(found.table())
            if json_:
                print(json.dumps(asdict(found)))
        return
    if launched_rank() != 0:
        return
    from epg.bench.lifetimes import check, measure, table

    name = _spec("--task", task)
    sizes = _sizes("--lifetimes", lifetimes)
    check(name)
    rows = [measure(name, size, threads) for size in sizes]
    print(table(task, threads, rows))
    if json_:
        print(json.dumps({"task": task, "threads": threads, "rows": [asdict(r) for r in rows]}))


@app.command()
def doctor(
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="Folder for runs.")
    ] = Path(),
    json_: Json = False,
) -> None:
    """What MPI, GPU, libraries and disk this machine gives; code 1 if runs would fail for it.

    Example: epg doctor runs
    """
    from epg.cluster.doctor import examine, plain

    findings = examine(folder)
    for finding in findings:
        print(finding.line())
    if json_:
        print(json.dumps(plain(findings)))
    if any(finding.stops for finding in findings):
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def epg(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if launched_rank() != 0 and context.invoked_subcommand not in MANY:
        raise typer.Exit
    if version:
        from epg.version import __version__

        print(f"epg {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UserError("no command; epg --help lists them")


def _start_ranks(ranks: int) -> None:
    """This command again, on the ranks of an mpirun of its own; then end as that does."""
    from epg.cluster.supervisor import CODES, Launcher

    launcher = Launcher()
    launcher.start(ranks, sys.argv[1:])
    code = launcher.wait() or 0
    if launcher.signal_name:
        name = launcher.signal_name
        print(f"epg: told to end ({name}); that is all mpirun's words above are about",
              file=sys.stderr, flush=True)  # fmt: skip
        raise typer.Exit(CODES[name])
    raise typer.Exit(code)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _sizes(option: str, text: str) -> tuple[int, ...]:
    from epg.settings import shown

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 20 and int(part) > 0 for part in parts):
        raise UserError(f"{option}: found {shown(text)}, expected sizes such as 64,64")
    return tuple(int(part) for part in parts)


def _spec(where: str, text: str) -> Any:
    """A task as a configuration would say it."""
    from epg.settings import parse_yaml

    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"{where} {text!r}: {error}") from None


class Command(typer.core.TyperCommand):
    """A command that refuses texts and names that no file can hold or have."""

    def invoke(self, ctx: Any) -> Any:
        for name, given in ctx.params.items():
            for value in given if isinstance(given, list | tuple) else [given]:
                if isinstance(value, str | Path):
                    _check_text(name, value)
        return super().invoke(ctx)


def _check_text(name: str, value: str | Path) -> None:
    found = f"{name}: found {str(value)[:60]}"
    try:
        path = str(value).encode()
    except UnicodeEncodeError:
        raise UserError(f"{found}, which is not UTF-8") from None
    if not isinstance(value, Path):
        return
    longest = max(map(len, path.split(b"/")))
    if longest > LONGEST_NAME:
        raise UserError(f"{found}…, a name of {longest} bytes; allowed: {LONGEST_NAME}")
    if len(path) > LONGEST_PATH:
        raise UserError(f"{found}…, a path of {len(path)} bytes; allowed: {LONGEST_PATH}")


for registered in app.registered_commands:
    registered.cls = Command


def main() -> None:
    """Run a command, and end with its exit code."""
    end(run_command())


def run_command() -> int:
    """The exit code of a command. A user's mistake is one line, said by rank 0 alone, and 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that has no φ shows a ? instead
            stream.reconfigure(errors="replace")
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and not "".join(sys.argv).isascii():  # libraries know no other
        _complain(f"names that are not ASCII need UTF-8, found {encoding}: set LC_ALL=C.UTF-8")
        return 2
    install_end_handlers()
    if sys.argv[1:2] and sys.argv[1] in ("train", "evaluate", "report", "tune"):
        install_save_handler()
    if launched_size() > 1:
        default_handlers()
    try:
        code = app(standalone_mode=False)
    except ForeseenError as error:
        _complain(str(error))
        code = error.code
    except UsageError as error:
        _complain(error.format_message())
        code = 2
    except Interruption as interruption:
        code = interruption.code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except MemoryError:
        code = _give_up_for_memory()
    except OSError as error:
        if error.errno == errno.ENOMEM:
            code = _give_up_for_memory()
        elif error.filename or not error.errno:  # a file or library: the traceback may tell more
            raise
        else:
            code = _give_up_output(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _give_up_output(error)
    return code or 0


def _give_up_for_memory() -> int:
    """Say who sets the limit. The exit code."""
    limit, who = memory_limit()
    _complain(f"out of memory, of which {who} gives {limit / 2**30:.3g} GB")
    return 1


def _give_up_output(error: OSError) -> int:
    """Standard output takes nothing any more: say so, and leave nothing in it. The exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _complain(f"standard output: {error.strerror}")
    return 1


def _show(text: str) -> None:
    """Print what may come from a file: characters that would steer a terminal are left out."""
    print("\n".join(printable(line) for line in text.split("\n")), flush=True)


def _complain(message: str) -> None:
    if launched_rank() == 0:
        line = printable(" ".join(message.split()))
        if len(line) > LONGEST_LINE:
            line = f"{line[: LONGEST_LINE - 1]}…"
        print(f"epg: {line}", file=sys.stderr, flush=True)
