"""The main job: what a method learns across lifetimes, step by step, on any farm."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from epg import tasks
from epg.config import Config, own_names
from epg.config import load as load_config
from epg.errors import INTERRUPTIONS, ForeseenError, Interruption, UserError
from epg.evaluation.tuned import with_scales
from epg.farm import Farm, mpi, worker
from epg.farm.run import run_on_ranks
from epg.farm.work import Failure, Outcome, Result, Shared, Workload
from epg.methods.base import Method, Params, Resident, Row, make_method
from epg.methods.footprint import check_memory
from epg.methods.saved import Saved, load
from epg.process.launcher import launched_rank, launched_size
from epg.process.log import logger, open_log
from epg.process.shipped import find
from epg.process.signals import set_grace
from epg.runs.collect import Collected, Collector, Deadline
from epg.runs.directory import Checkpoint, RunDirectory
from epg.runs.files import foreseen
from epg.seeds import Purpose
from epg.training.estimate import TrialError, check_units, estimate
from epg.training.progress import Progress
from epg.training.rounds import Rounds
from epg.training.runner import TrainingRunner
from epg.training.tensorboard import Events, check_tensorboard

ATTEMPTS = 3
"""A member whose unit has failed so often is invalid."""
MOST_INVALID = 0.1
"""Share of a step's members that may be invalid."""


@worker.failing_together()
def train(
    config: Config | str | Path,
    run: str | Path | None = None,
    start_from: str | Path | None = None,
) -> Path:
    """Train a method; the path of the best that it learned. The same call again goes on.

    In one process, or, where mpirun or srun started several, as their master or worker.
    config: settings, or a YAML file; run: the run directory, new or to be continued, runs/NAME
    if None, after the file or the task; start_from: a saved file to start from.
    Raises `UserError` for what a user can mend.
    """
    name = Path(config).stem if isinstance(config, str | Path) else None
    config = with_scales(load_config(config) if isinstance(config, str | Path) else config)
    name = name or tasks.file_name(config.task)
    run = Path("runs") / name if run is None else Path(run)
    if launched_size() == 1 or launched_rank() != mpi.MASTER:  # the master needs no GPU
        _check_device(config.device)
    check_tensorboard(config.log.tensorboard)
    set_grace(config.farm.grace)
    runner = TrainingRunner(config)
    run_on_ranks(runner, run / "log", lambda farm: _master(runner, farm, run, start_from))
    return run / "best.safetensors"


def check(path: str | Path, overrides: Sequence[str] = ()) -> Method:
    """The method of a configuration. Raises `UserError` for all that no rank need find out."""
    config = with_scales(load_config(path, overrides))
    check_tensorboard(config.log.tensorboard)
    method = make_method(config, tasks.make(config.task))
    method.workload(0)  # refuses what cannot be cut into units
    return method


def _master(runner: TrainingRunner, farm: Farm, run: Path, start_from: str | Path | None) -> None:
    """The master's part."""
    method, config = runner.method, runner.config
    check_memory("the master", method.step_bytes())
    if config.device == "cpu":  # torch itself knows of a GPU's memory
        check_units(method)
    params = starting_params(method, start_from)
    if start_from is not None:
        config = config.model_copy(update={"start_from": digest(start_from)})
    directory = RunDirectory(run, config, method.metrics, method.validated_as())
    if directory.done:
        print(f"{run}: all {config.steps} generations were done before")
        return
    Training(method, farm, directory, params).run()


def _check_device(name: str) -> None:
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device: found {name}, but torch sees {torch.cuda.device_count()} GPUs")


def digest(path: str | Path) -> str:
    """What tells a saved file from all others."""
    return hashlib.sha256(find("loss", path).read_bytes()).hexdigest()[:16]


def starting_params(method: Method, start_from: str | Path | None) -> Params:
    """What step 0 starts from: drawn, or that of a saved file. Raises `UserError`."""
    config = method.config
    if start_from is None:
        if config.start_from is not None:
            raise UserError(
                f"start_from: found {config.start_from}; name that loss with --from instead"
            )
        return method.init()
    saved = load(start_from, trust=set(own_names(config.method.model_dump(mode="json"))))
    ours, theirs = _traits(method, method.init()), _traits(saved.method(), saved.params)
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{start_from}: does not fit task {tasks.label(config.task)} with this "
                f"configuration: its {name} is {theirs.get(name)}, needed {ours.get(name)}"
            )
    return saved.params


def _traits(method: Method, params: Mapping[str, Tensor]) -> dict[str, object]:
    """All in which two methods must agree for what one learned to mean the same to the other."""
    task, config = method.task, method.config
    sizes = {"observation size": task.observation_size, "action size": task.action_size}
    return {
        **(sizes if method.sized else {}),
        "discrete": task.discrete,
        "memory": config.agent.memory,
        "method": config.method.name,
        **method.same(),
        **{name: tuple(tensor.shape) for name, tensor in params.items()},
    }


class Training:
    """A run under way, on the master."""

    def __init__(self, method: Method, farm: Farm, directory: RunDirectory, params: Params) -> None:
        method.begin(params)
        self.config = config = directory.config
        self.method = method
        self.farm = farm
        self.directory = directory
        self.collector = Collector(
            farm, directory.journal, directory.lock, ATTEMPTS, MOST_INVALID,
            Deadline(config.farm.deadline, config.farm.least_deadline),
        )  # fmt: skip
        self.step = 0
        self._rounds = Rounds(farm, config.farm.least_deadline)
        self._validated_as: dict[str, float] = {
            **{f"final_{name}": value for name, value in method.validated_as().items()},
            "validation_lifetimes": config.validation.lifetimes,
        }
        self.totals: dict[str, float] = {
            "environment_steps": 0, "validation_steps": 0, "core_seconds": 0.0,
            "best_validation": -math.inf, "best_generation": -1, **self._validated_as,
        }  # fmt: skip

    def run(self) -> None:
        """From where the directory stands to the last step."""
        try:
            with self.directory.held():
                self._resume()
                self.directory.begin()
                open_log(self.directory.path / "log", mpi.MASTER)
                self._name_ranks()
                self.directory.write_state("running", self.step)
                try:
                    self._go_on()
                except BaseException as error:
                    self._write_end(error)
                    raise
        except OSError as error:
            if not error.filename:
                raise
            raise foreseen(error) from None

    def _name_ranks(self) -> None:
        """Log where each rank sits; warn of processors that may round differently."""
        for rank in self.farm.ranks:
            logger.info("%s", rank)
        cpus = sorted({rank.cpu for rank in self.farm.ranks})
        if len(cpus) > 1:
            print(
                f"warning: ranks on different processors ({'; '.join(cpus)}): another start may "
                "differ in the last bits",
                flush=True,
            )

    def _go_on(self) -> None:
        """All steps that are missing."""
        directory, total = self.directory, self.config.steps
        directory.start_metrics(self.step)
        if not isinstance(self.method, Resident):  # whose first steps say nothing of later ones
            self._estimate()
        events = Events(directory.path, self.step, self.config.log.tensorboard)
        with Progress(total, self.step, self.method.step_cost()) as progress:
            while self.step < total:
                progress.show(self.advance(progress.advance, events.add))
            final = self._validate(progress.advance)
        self._finish(final)

    def _estimate(self) -> None:
        """Say what the run will cost."""
        try:
            cost = estimate(self.farm, self.farm.workers, self.method, self._shared(), self.step)
        except TrialError as error:
            print(f"no estimate of the run's cost, its trial failed: {error}", flush=True)
        else:
            self.collector.deadline.typical_seconds = cost.unit_seconds
            if self.step < self.config.steps:
                print(cost.line(), flush=True)

    def _write_end(self, error: BaseException) -> None:
        """Leave word of how the run ended."""
        state, why = "crashed", f"{type(error).__name__}: {error}"
        if isinstance(error, INTERRUPTIONS):
            state = "saved"
            why = error.signal_name if isinstance(error, Interruption) else "SIGINT"
        elif isinstance(error, ForeseenError):
            state, why = "failed", str(error)
        with suppress(OSError):
            if self.directory.lock.is_mine():
                self.directory.write_state(state, self.step, why)
        if state == "saved":
            print(
                f"{self.directory.path}: saved after {self.step} of "
                f"{self.config.steps} generations; the same command goes on",
                flush=True,
            )

    def advance(
        self,
        add_steps: Callable[[int], None] = lambda steps: None,
        add_row: Callable[[Row], None] = lambda row: None,
    ) -> Row:
        """One step of the outer loop, and all of it on disk. Its row of metrics.

        `add_steps` is told of environment steps as they are done, `add_row` of the row before it
        counts.
        """
        row = self._step(add_steps)
        self.directory.add_metrics(row)
        add_row(row)
        self._save(self.step + 1)
        return row

    def _finish(self, final: float) -> None:
        """Say what came of it all; `final` is the validation of the newest that was learned."""
        directory = self.directory
        self._keep_best(final)
        self._save(self.step)  # whoever adds steps knows of the best so far
        best, generation = self.totals["best_validation"], int(self.totals["best_generation"])
        directory.write_state("done", self.step)
        directory.finish(
            {"generations": self.step, "validation": _or_none(final),
             "best_validation": _or_none(best), "best_generation": generation}
        )  # fmt: skip
        print(
            f"done: {directory.path / 'best.safetensors'} (after {generation} generations, "
            f"validation {best:.6g}; the newest {final:.6g})",
            flush=True,
        )

    def _resume(self) -> None:
        checkpoint = self.directory.resume(self.method.state_dict())
        if checkpoint is None:
            return
        self.step = checkpoint.step
        self.method.load_state_dict(checkpoint.tensors)
        comparable = self._validated_as.items() <= checkpoint.totals.items()
        self.totals |= checkpoint.totals | self._validated_as
        if not comparable:  # validations of before say nothing about those to come
            self.totals |= {"best_validation": -math.inf, "best_generation": -1}
        print(
            f"{self.directory.path}: goes on after {self.step} of {self.config.steps} generations",
            flush=True,
        )

    def _shared(self) -> Shared:
        return Shared(self.step, self.method.shared(self.step))

    def _validation(self) -> Workload:
        """Single lifetimes, twice as many in a unit as there are pairs."""
        config = self.config
        return Workload(
            Purpose.VALIDATION, self.step, config.validation.lifetimes, 2 * config.farm.chunk, 2
        )

    def _step(self, add_steps: Callable[[int], None]) -> Row:
        """One step: what the farm has to do, what came of it, and what moves by it."""
        started, step, method = time.perf_counter(), self.step, self.method
        workloads = [] if isinstance(method, Resident) else [method.workload(step)]
        if step % self.config.validation.every == 0:
            workloads.append(self._validation())
        parts = self.collector.collect(
            self._shared(), workloads, self._reporter(add_steps), lambda: method.idle(step)
        )
        validation = None
        if parts and parts[-1].workload.purpose == Purpose.VALIDATION:
            validation = mean_fitness(parts[-1])
            self._keep_best(validation)
        if isinstance(method, Resident):
            parts.insert(0, self._rounds.run(method, step, add_steps))
        with parts[0].used():
            own = method.update(step, parts[0].results)
        self._count(parts)
        results = [result for part in parts for result in part.results]
        seconds = time.perf_counter() - started
        return {
            "generation": step,
            "validation": validation,
            "invalid": len(parts[0].invalid),
            **own,
            "exploded": sum(r.exploded for r in results),
            "environment_steps": self.totals["environment_steps"],
            "validation_steps": self.totals["validation_steps"],
            "core_seconds": self.totals["core_seconds"],
            "steps_per_second": sum(r.steps for r in results) / seconds,
        }

    def _validate(self, add_steps: Callable[[int], None]) -> float:
        """The mean fitness of agents that learn by the newest that was learned."""
        report = self._reporter(add_steps)
        (part,) = self.collector.collect(self._shared(), [self._validation()], report)
        return mean_fitness(part)

    def _reporter(self, add_steps: Callable[[int], None]) -> Callable[[Outcome, Collected], None]:
        """What is told of outcomes as they come."""

        def report(outcome: Outcome, collected: Collected) -> None:
            if isinstance(outcome, Result):
                add_steps(outcome.steps)
            else:
                _print_failure(outcome, collected)

        return report

    def _count(self, parts: list[Collected]) -> None:
        for part in parts:
            training = part.workload.purpose == Purpose.TRAINING
            self.totals["environment_steps" if training else "validation_steps"] += sum(
                r.steps for r in part.results
            )
            self.totals["core_seconds"] += sum(r.core_seconds for r in part.results)

    def _keep_best(self, validation: float) -> None:
        if validation > self.totals["best_validation"] or self.totals["best_generation"] < 0:
            self.totals["best_validation"] = validation
            self.totals["best_generation"] = self.step
            self._write("best.safetensors")

    def _write(self, name: str) -> None:
        """What is learned so far, into a file."""
        config, task = self.config, self.method.task
        Saved(
            config=config,
            params=self.method.params(),
            sizes=(task.observation_size, task.action_size, task.discrete),
            step=self.step,
            tasks=tuple(tasks.label(part) for part in tasks.parts_of(config.task)),
        ).save(self.directory.path / name)

    def _save(self, step: int) -> None:
        """Everything that the next step starts from; then the journal may begin anew."""
        self.directory.lock.check()
        self.step = step
        self._write("loss.safetensors")
        stages = self.config.log.stages
        if stages is not None and step % stages == 0:
            self._write(f"stages/{step:08d}.safetensors")
        self.directory.save(Checkpoint(step, self.method.state_dict(), self.totals))
        self.directory.journal.clear()
        self.directory.write_state("running", step)


def _print_failure(failure: Failure, collected: Collected) -> None:
    unit = failure.unit
    times = max(collected.failures[member] for member in unit.members)
    what = "tried again" if times < ATTEMPTS else "invalid: left out"
    print(
        f"generation {unit.step + 1}, {unit.purpose.name.lower()}, members {unit.first} to "
        f"{unit.first + unit.count - 1} failed ({times} of {ATTEMPTS}; {what}): {failure.reason}",
        flush=True,
    )


def mean_fitness(collected: Collected) -> float:
    """Over all lifetimes of a validation; −∞ if any failed."""
    if collected.invalid:
        return -math.inf
    with collected.used():
        mean = float(collected.array("fitness").mean())
    return mean if math.isfinite(mean) else -math.inf


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
