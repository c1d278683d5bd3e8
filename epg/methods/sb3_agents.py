"""Agents of Stable-Baselines3, P at once, each driven by the library's own loop.

A loop runs as far as its next action, and on when the environment's answer is there. PPO has our
settings and our agents at first: networks, observation normalisation, value weight 1, no gradient
clipping, Adam's ε. TD3 and SAC have the library's own settings.
Shape letters: P lifetimes, E episodes, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
import torch
from greenlet import getcurrent, greenlet
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor

from epg.agents.actor_critic import init_parameters
from epg.agents.adam import ADAM_EPSILON
from epg.agents.age import Age
from epg.agents.base import Agents, Metrics, Policy
from epg.agents.buffer import Transitions
from epg.agents.network import Parameters
from epg.agents.spec import AgentSpec
from epg.config import Setup
from epg.seeds import LifetimeSeed, LifetimeSeeds, Stream
from epg.tasks.base import Step, Task

UNBOUNDED = 1e6
"""Ours draws actions from a Gaussian; what a task clips, it clips itself."""
NOISE = 0.1
"""TD3's exploration, of actions in ±1."""
ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}
NOT_FINITE = ("nan", "found invalid values")
"""How torch's distributions and the library say that a policy is none any more."""


class Sb3Agents(Agents):
    """P agents of ppo, td3 or sac."""

    def __init__(self, kind: str, task: Task, setup: Setup, seeds: LifetimeSeeds) -> None:
        self._lives = [_Life(kind, task, setup, seed) for seed in seeds.each()]
        self._shape = () if task.discrete else (task.action_size,)
        self._type = torch.int64 if task.discrete else torch.float32

    def policy(self, episodes: int | None = None) -> Policy:
        return _Policy(self, episodes)

    def learn(self, new: Transitions) -> Metrics:
        """The loops learn by themselves; this tells them the newest answer, which no action of
        theirs has asked for."""
        assert new.last is not None
        for i, life in enumerate(self._lives):
            life.go_on(_row(new.last, i))
        return {}

    @property
    def failed(self) -> Tensor:
        return torch.tensor([life.failed for life in self._lives])

    def act(self, step: Step) -> Tensor:
        """The next action of each loop."""
        actions = torch.zeros(len(self._lives), *self._shape, dtype=self._type)
        for i, life in enumerate(self._lives):
            if life.action is None and not life.failed:
                life.go_on(_row(step, i))
            if life.action is not None:
                actions[i] = torch.from_numpy(life.action)[0]
                life.action = None
        return actions

    def act_as_trained(self, step: Step, episodes: int) -> Tensor:
        """Actions in judged episodes, of those that have not ended."""
        resting = (step.terminated | step.truncated).view(-1, episodes)
        actions = torch.zeros(len(step.reward), *self._shape, dtype=self._type)
        for i, life in enumerate(self._lives):
            rows = slice(i * episodes, (i + 1) * episodes)
            if not resting[i].all() and not life.failed:
                actions[rows] = torch.from_numpy(life.predict(step.observation[rows]))
        return actions


class _Policy:
    """What acts: the loops while they learn, the trained models when they are judged."""

    def __init__(self, agents: Sb3Agents, episodes: int | None) -> None:
        self._agents, self._episodes = agents, episodes

    def act(self, step: Step) -> Tensor:
        if self._episodes is None:
            return self._agents.act(step)
        return self._agents.act_as_trained(step, self._episodes)


def _row(step: Step, i: int) -> Step:
    return Step(*(tensor[i : i + 1] for tensor in step))


class _Life:
    """One agent, and its loop."""

    def __init__(self, kind: str, task: Task, setup: Setup, seed: LifetimeSeed) -> None:
        self.action: np.ndarray | None = None
        """[1, A] or [1], the next; None if the loop has not come to it"""
        self.failed = False
        self._steps = setup.lifetime.steps
        self._environment = _Environment(task, UNBOUNDED if kind == "ppo" else 1.0)
        self._chance = _Chance()
        number = int(seed.rng(Stream.ANOTHER_LIBRARY).integers(2**31))
        with self._chance:
            if kind == "ppo":
                seen = VecNormalize(self._environment, norm_reward=False, clip_obs=np.inf)
                spec = AgentSpec.of(task, setup.agent)
                first = init_parameters(spec, LifetimeSeeds([seed], [0]))
                self._model: BaseAlgorithm = _ppo(setup, first, seen, number)
            else:
                self._model = _off_policy(kind, self._environment, setup, number)
        self._loop = greenlet(self._learn)

    def go_on(self, step: Step) -> None:
        """Give the loop what the environment answered; it comes to its next action, or its end."""
        if self._loop.dead:
            return
        with self._chance:
            if not self._loop:
                self._environment.first = step
            self.action = self._loop.switch(step)
        if self._loop.dead:
            weights = self._model.policy.parameters()
            self.failed |= not all(torch.isfinite(weight).all() for weight in weights)

    def predict(self, observations: Tensor) -> np.ndarray:
        """Actions of the trained policy, which samples if it is PPO's: for [E, O]."""
        seen = observations.numpy().astype(np.float32)
        normaliser = self._model.get_vec_normalize_env()
        normal: Any = normaliser.normalize_obs(seen) if normaliser else seen
        actions = np.zeros(1, np.float32)
        with self._chance, self._failing():
            actions, _ = self._model.predict(normal, deterministic=not isinstance(self._model, PPO))
        return actions

    def _learn(self, step: Step) -> None:
        with self._failing():
            self._model.learn(self._steps)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """A policy that is none any more is this life's failure, and no one else's."""
        try:
            yield
        except ValueError as error:
            if not any(sign in str(error) for sign in NOT_FINITE):
                raise
            self.failed = True


class _Chance:
    """The global generators of torch and NumPy, which the library draws from, for one life."""

    def __init__(self) -> None:
        self._torch, self._numpy = torch.get_rng_state(), np.random.get_state()

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        outside = torch.get_rng_state(), np.random.get_state()
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)
        self._torch, self._numpy = outside


class _Environment(VecEnv):
    """One environment, as the library wants it; who drives the loop lives in it."""

    first: Step

    def __init__(self, task: Task, bound: float) -> None:
        observations = gymnasium.spaces.Box(-np.inf, np.inf, (task.observation_size,), np.float32)
        actions: gymnasium.Space[Any] = (
            gymnasium.spaces.Discrete(task.action_size)
            if task.discrete
            else gymnasium.spaces.Box(-bound, bound, (task.action_size,), np.float32)
        )
        super().__init__(1, observations, actions)

    def reset(self) -> np.ndarray:
        return self.first.observation.numpy().astype(np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        parent = getcurrent().parent
        assert parent is not None
        step: Step = parent.switch(self._actions)
        done = bool(step.terminated | step.truncated)
        info: dict[str, Any] = {"TimeLimit.truncated": bool(step.truncated)}
        if done:
            info["terminal_observation"] = step.next_observation[0].numpy().astype(np.float32)
        return (
            step.observation.numpy().astype(np.float32),
            step.reward.numpy().astype(np.float32),
            np.array([done]),
            [info],
        )

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False]


def _ppo(setup: Setup, first: Parameters, environment: VecEnv, seed: int) -> PPO:
    learner, updates = setup.learner, setup.lifetime.updates
    sizes = list(setup.agent.hidden)

    def learning_rate(left: float) -> float:
        """Left of the life, 1 to 0, after the rollout that is learned from."""
        return learner.learning_rate * learner.schedule.factor(
            Age(max(0, round((1 - left) * updates) - 1), updates)
        )

    model = PPO(
        "MlpPolicy",
        environment,
        learning_rate=learning_rate,
        n_steps=setup.lifetime.steps_per_update,
        batch_size=learner.minibatch,
        n_epochs=learner.passes,
        gamma=learner.discount,
        gae_lambda=learner.gae_lambda,
        clip_range=learner.clip,
        vf_coef=1.0,
        max_grad_norm=float("inf"),
        policy_kwargs={
            "net_arch": {"pi": sizes, "vf": sizes},
            "activation_fn": ACTIVATIONS[setup.agent.activation],
            "optimizer_kwargs": {"eps": ADAM_EPSILON},
        },
        seed=seed,
        device="cpu",
    )
    _copy(first, "policy", [*model.policy.mlp_extractor.policy_net, model.policy.action_net])
    _copy(first, "value", [*model.policy.mlp_extractor.value_net, model.policy.value_net])
    return model


def _copy(parameters: Parameters, name: str, modules: Sequence[torch.nn.Module]) -> None:
    """The networks of the first agent."""
    layers = [module for module in modules if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(parameters[f"{name}.{i}.weight"][0].T)
            layer.bias.copy_(parameters[f"{name}.{i}.bias"][0])


def _off_policy(kind: str, environment: VecEnv, setup: Setup, seed: int) -> BaseAlgorithm:
    shared: dict[str, Any] = {
        "gamma": setup.learner.discount, "buffer_size": setup.lifetime.steps, "seed": seed,
        "device": "cpu",
    }  # fmt: skip
    if kind == "sac":
        return SAC("MlpPolicy", environment, **shared)
    size = environment.action_space.shape or ()
    noise = NormalActionNoise(np.zeros(size, np.float32), np.full(size, NOISE, np.float32))
    return TD3("MlpPolicy", environment, action_noise=noise, **shared)
