"""The main job: evolve a loss. The outer loop of Evolved Policy Gradients, on any farm."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from epg import tasks
from epg.artifact import Artifact, load
from epg.chunk import Center, Evaluator
from epg.config import Config
from epg.config import load as load_config
from epg.errors import INTERRUPTIONS, ForeseenError, Interruption, RunError, UserError
from epg.estimate import TrialError, estimate
from epg.evolution.shaping import SHAPINGS, pair_difference
from epg.farm import Farm, mpi, worker
from epg.farm.roles import take_part
from epg.gather import Gatherer, Harvest
from epg.genome import Genome
from epg.launch import launched_rank, launched_size
from epg.log import logger, open_log
from epg.progress import Progress
from epg.run import Checkpoint, RunDirectory
from epg.seeds import Purpose
from epg.tensorboard import Events
from epg.tuned import with_scales

Row = dict[str, float | None]
"""Of metrics.csv."""
AT_ONCE = 16
"""Pairs whose noise is drawn between two looks at what came in: some milliseconds' work."""


@worker.failing_together()
def train(
    config: Config | str | Path,
    run: str | Path | None = None,
    start_from: str | Path | None = None,
) -> Path:
    """Evolve a loss; the path of the best one. The same call again goes on where it stopped.

    In one process, or, where mpirun or srun started several, as their master or worker.
    config: settings, or a YAML file; run: the run directory, new or to be continued, runs/NAME
    if None, after the file or the task; start_from: a saved loss to start from.
    Raises `UserError` for what a user can mend.
    """
    name = Path(config).stem if isinstance(config, str | Path) else None
    config = with_scales(load_config(config) if isinstance(config, str | Path) else config)
    name = name or tasks.file_name(config.task)
    run = Path("runs") / name if run is None else Path(run)
    if launched_size() == 1 or launched_rank() != mpi.MASTER:  # the master needs no GPU
        _check_device(config.device)
    evaluator = Evaluator(config)
    take_part(evaluator, run / "log", lambda farm: _evolve(evaluator, farm, run, start_from))
    return run / "best.safetensors"


def _evolve(evaluator: Evaluator, farm: Farm, run: Path, start_from: str | Path | None) -> None:
    """The master's part."""
    phi = starting_phi(evaluator, start_from)
    config = evaluator.config
    if start_from is not None:
        config = config.model_copy(update={"start_from": digest(start_from)})
    directory = RunDirectory(run, config)
    if directory.done:
        print(f"{run}: all {config.evolution.generations} generations were done before")
        return
    Training(config, evaluator, farm, directory, phi).run()


def _check_device(name: str) -> None:
    kind, _, number = name.partition(":")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"device: found {name}, but torch sees {torch.cuda.device_count()} GPUs")


def digest(path: str | Path) -> str:
    """What tells a loss file from all others."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def starting_phi(evaluator: Evaluator, start_from: str | Path | None) -> Tensor:
    """φ of generation 0: drawn, or that of a saved loss."""
    config, genome = evaluator.config, evaluator.genome
    if start_from is None:
        if config.start_from is not None:
            raise UserError(
                f"start_from: found {config.start_from}; name that loss with --from instead"
            )
        return genome.draw(config.seed, zero_output=config.evolution.start == "residual")
    artifact = load(start_from)
    ours, theirs = _traits(genome), _traits(artifact.genome)
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{start_from}: does not fit task {tasks.label(config.task)} with this "
                f"configuration: its {name} is {theirs.get(name)}, needed {ours.get(name)}"
            )
    return artifact.phi


def _traits(genome: Genome) -> dict[str, object]:
    """All in which two losses must agree to be the same function of φ."""
    body = genome.architecture.body
    return {
        "observation size": body.observation_size,
        "action size": body.action_size,
        "discrete": body.discrete,
        "memory": body.memory,
        "inputs": genome.architecture.inputs,
        "evolve_policy_init": genome.with_policy,
        **genome.shapes,
    }


class Training:
    """A run under way, on the master."""

    def __init__(
        self, config: Config, evaluator: Evaluator, farm: Farm, directory: RunDirectory, phi: Tensor
    ) -> None:
        from epg.evolution.strategy import Strategy  # takes seconds; workers do without

        self.config = config
        self.evaluator = evaluator
        self.farm = farm
        self.directory = directory
        self.strategy = Strategy(config.evolution, phi)
        self.gatherer = Gatherer(config, farm, directory)
        self.generation = 0
        self.totals: dict[str, float] = {
            "environment_steps": 0, "validation_steps": 0, "core_seconds": 0.0,
            "best_validation": -math.inf, "best_generation": -1,
            "final_alpha": config.final_alpha, "validation_lifetimes": config.validation.lifetimes,
        }  # fmt: skip

    def run(self) -> None:
        """From where the directory stands to the last generation."""
        try:
            with self.directory.held():
                self._resume()
                self.directory.begin()
                open_log(self.directory.path / "log", mpi.MASTER)
                self._name_members()
                self.directory.say("running", self.generation)
                try:
                    self._go_on()
                except BaseException as error:
                    self._tell(error)
                    raise
        except OSError as error:
            if not error.filename:
                raise
            raise RunError(f"{error.filename}: {error.strerror}") from None  # a full disk, mostly

    def _name_members(self) -> None:
        """Log where each rank sits; warn of processors that may round differently."""
        members = self.farm.members
        for member in members:
            logger.info("%s", member)
        cpus = sorted({member.cpu for member in members})
        if len(cpus) > 1:
            print(
                f"warning: ranks on different processors ({'; '.join(cpus)}): another start may "
                "differ in the last bits",
                flush=True,
            )

    def _go_on(self) -> None:
        """All generations that are missing."""
        directory, total = self.directory, self.config.evolution.generations
        directory.start_metrics(self.generation)
        try:
            cost = estimate(self.farm, self.farm.workers, self.evaluator, self.generation)
        except TrialError as error:
            print(f"no estimate of the run's cost, its trial failed: {error}", flush=True)
        else:
            self.gatherer.typical_seconds = cost.chunk_seconds
            if self.generation < total:
                print(cost.line(), flush=True)
        with (
            Events(directory.path, self.generation) as events,
            Progress(total, self.generation, self._generation_steps()) as progress,
        ):
            while self.generation < total:
                progress.show(self.advance(progress.advance, events.add))
            final = self._validate(self._center(), progress.advance)
        self._finish(final)

    def _tell(self, error: BaseException) -> None:
        """Leave word of how the run ended."""
        state, why = "crashed", f"{type(error).__name__}: {error}"
        if isinstance(error, INTERRUPTIONS):
            state = "saved"
            why = error.said if isinstance(error, Interruption) else "SIGINT"
        elif isinstance(error, ForeseenError):
            state, why = "failed", str(error)
        with suppress(OSError):
            if self.directory.lock.is_mine():
                self.directory.say(state, self.generation, why)
        if state == "saved":
            print(
                f"{self.directory.path}: saved after {self.generation} of "
                f"{self.config.evolution.generations} generations; the same command goes on",
                flush=True,
            )

    def advance(
        self,
        tell_steps: Callable[[int], None] = lambda steps: None,
        tell_row: Callable[[Row], None] = lambda row: None,
    ) -> Row:
        """One generation, and all of it on disk. Its row of metrics.

        `tell_steps` is told of steps as they are done, `tell_row` of the row before it counts.
        """
        row = self._live_generation(tell_steps)
        self.directory.add_metrics(row)
        tell_row(row)
        self._save(self.generation + 1)
        return row

    def _finish(self, final: float) -> None:
        """Say what came of it all; `final` is the validation of the newest φ."""
        directory = self.directory
        self._keep_best(final)
        self._save(self.generation)  # whoever adds generations knows of the best so far
        best, generation = self.totals["best_validation"], int(self.totals["best_generation"])
        directory.say("done", self.generation)
        directory.finish(
            {"generations": self.generation, "validation": _or_none(final),
             "best_validation": _or_none(best), "best_generation": generation}
        )  # fmt: skip
        print(
            f"done: {directory.path / 'best.safetensors'} (after {generation} generations, "
            f"validation {best:.6g}; the newest φ {final:.6g})",
            flush=True,
        )

    def _resume(self) -> None:
        checkpoint = self.directory.resume(self.strategy.tensors())
        if checkpoint is None:
            return
        self.generation = checkpoint.generation
        self.strategy.restore(checkpoint.tensors)
        validated_as = {k: self.totals[k] for k in ("final_alpha", "validation_lifetimes")}
        comparable = validated_as.items() <= checkpoint.totals.items()
        self.totals |= checkpoint.totals | validated_as
        if not comparable:  # validations of before say nothing about those to come
            self.totals |= {"best_validation": -math.inf, "best_generation": -1}
        total = self.config.evolution.generations
        print(
            f"{self.directory.path}: goes on after {self.generation} of {total} generations",
            flush=True,
        )

    def _center(self) -> Center:
        evolution = self.config.evolution
        return Center(
            generation=self.generation,
            phi=self.strategy.phi.numpy().copy(),
            sigma=evolution.sigma.at(self.generation),
            alpha=self.config.alpha.at(self.generation),
        )

    def _live_generation(self, tell_steps: Callable[[int], None]) -> Row:
        """One generation: ask, farm out, tell. Its row of metrics."""
        from epg.evolution.strategy import Noise, cosine

        config, evolution, started = self.config, self.config.evolution, time.perf_counter()
        center = self._center()
        purposes = [Purpose.TRAINING]
        if self.generation % config.validation.every == 0:
            purposes.append(Purpose.VALIDATION)
        noise = Noise(config.seed, self.generation, evolution.pairs, len(center.phi))
        came = self.gatherer.gather(center, purposes, tell_steps, lambda: noise.draw_ahead(AT_ONCE))
        harvest = came[Purpose.TRAINING]
        returns = harvest.returns
        fitness = np.concatenate([r.fitness for r in returns])
        validation = None
        if Purpose.VALIDATION in purposes:
            validation = mean_return(came[Purpose.VALIDATION])
            self._keep_best(validation)
        before = self.strategy.gradient
        weights = SHAPINGS[evolution.shaping](fitness)
        self.strategy.step(self.generation, noise.of(harvest.valid), weights)
        if not torch.isfinite(self.strategy.phi).all():
            raise RunError(f"φ left the finite in generation {self.generation + 1}")
        self._count(came)
        all_returns = [r for part in came.values() for r in part.returns]
        difference = np.abs(pair_difference(fitness))
        finite = fitness[np.isfinite(fitness)]
        return {
            "generation": self.generation,
            "fitness_mean": finite_mean([fitness.ravel()]),
            "fitness_best": float(finite.max()) if finite.size else None,
            "fitness_worst": float(finite.min()) if finite.size else None,
            "validation": validation,
            "ties": float((difference == 0).mean()),
            "failures": 1 - finite.size / fitness.size,
            "invalid": len(harvest.invalid),
            "pair_signal": signal(difference),
            "gradient_cosine": _or_none(cosine(before, self.strategy.gradient)),
            "phi_norm": float(torch.from_numpy(center.phi).norm()),
            "sigma": center.sigma,
            "alpha": center.alpha,
            "learning_rate": evolution.learning_rate.at(self.generation),
            "inner_kl": finite_mean([r.kl for r in returns]),
            "inner_entropy": finite_mean([r.entropy for r in returns]),
            "exploded": sum(r.exploded for r in all_returns),
            "environment_steps": self.totals["environment_steps"],
            "validation_steps": self.totals["validation_steps"],
            "core_seconds": self.totals["core_seconds"],
            "steps_per_second": sum(r.steps for r in all_returns) / (time.perf_counter() - started),
        }

    def _validate(self, center: Center, tell_steps: Callable[[int], None]) -> float:
        """The mean final return of φ itself."""
        return mean_return(
            self.gatherer.gather(center, [Purpose.VALIDATION], tell_steps)[Purpose.VALIDATION]
        )

    def _count(self, came: dict[Purpose, Harvest]) -> None:
        for purpose, part in came.items():
            training = purpose == Purpose.TRAINING
            self.totals["environment_steps" if training else "validation_steps"] += sum(
                r.steps for r in part.returns
            )
            self.totals["core_seconds"] += sum(r.seconds for r in part.returns)

    def _keep_best(self, validation: float) -> None:
        if validation > self.totals["best_validation"] or self.totals["best_generation"] < 0:
            self.totals["best_validation"] = validation
            self.totals["best_generation"] = self.generation
            self._write_loss("best.safetensors")

    def _write_loss(self, name: str) -> None:
        config = self.config
        Artifact(
            genome=self.evaluator.genome,
            phi=self.strategy.phi,
            alpha=config.final_alpha,
            config=config.model_dump(mode="json"),
            generation=self.generation,
            tasks=tuple(tasks.label(part) for part in tasks.parts_of(config.task)),
        ).save(self.directory.path / name)

    def _save(self, generation: int) -> None:
        """Everything that the next generation starts from; then the journal may begin anew."""
        self.directory.lock.check()
        self.generation = generation
        self._write_loss("loss.safetensors")
        self.directory.save(Checkpoint(generation, self.strategy.tensors(), self.totals))
        self.directory.journal.clear()
        self.directory.say("running", generation)

    def _generation_steps(self) -> int:
        config = self.config
        lifetimes = 2 * config.evolution.pairs * config.evolution.mdps_per_pair
        return lifetimes * config.lifetime.steps


def mean_return(harvest: Harvest) -> float:
    """Mean fitness over all lifetimes; −∞ if any failed."""
    if harvest.invalid:
        return -math.inf
    mean = float(np.concatenate([r.fitness for r in harvest.returns]).mean())
    return mean if math.isfinite(mean) else -math.inf


def signal(difference: np.ndarray) -> float | None:
    """Mean |difference| within pairs over its standard deviation; None if they do not vary."""
    finite = difference[np.isfinite(difference)]
    spread = float(finite.std()) if finite.size else 0.0
    return float(finite.mean()) / spread if spread else None


def finite_mean(parts: list[np.ndarray]) -> float | None:
    """Mean of what is finite; None if nothing is."""
    values = np.concatenate(parts)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
