"""Stable-Baselines3's PPO, TD3 and SAC: a check from outside that our PPO is no straw man.

PPO has our settings and our agents at birth: networks, observation normalisation, value weight 1,
no gradient clipping, Adam's ε. TD3 and SAC have the library's own settings.
Shape letters: U updates, M steps per update, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from epg.agents.agents import Agents, bear
from epg.chunk import draw_mdp
from epg.config import Lifetime
from epg.lifetime import ADAM_EPSILON, Lived, body_of
from epg.losses.ppo import Ppo
from epg.seeds import Fate, Fates, Stream
from epg.tasks.base import Mdp, Task

UNBOUNDED = 1e6
"""Ours draws actions from a Gaussian; what a task clips, it clips itself."""
NOISE = 0.1
"""TD3's exploration, of actions in ±1."""
ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


class Environment(VecEnv):
    """One environment of a task, as the library wants it; it keeps the returns of its episodes."""

    def __init__(self, task: Task, mdp: Mdp, rng: np.random.Generator, bound: float) -> None:
        observations = gymnasium.spaces.Box(-np.inf, np.inf, (task.observation_size,), np.float32)
        actions: gymnasium.Space[Any] = (
            gymnasium.spaces.Discrete(task.action_size)
            if task.discrete
            else gymnasium.spaces.Box(-bound, bound, (task.action_size,), np.float32)
        )
        super().__init__(1, observations, actions)
        self._batch = task.batch([mdp], [rng])
        self._return, self._steps = 0.0, 0
        self.ended: list[tuple[int, float]] = []
        """after how many steps each episode ended, and its return"""

    def reset(self) -> np.ndarray:
        return self._batch.reset().numpy().astype(np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.from_numpy(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        step = self._batch.step(self._actions)
        done = bool(step.terminated | step.truncated)
        info: dict[str, Any] = {"TimeLimit.truncated": bool(step.truncated)}
        self._steps += 1
        self._return += float(step.reward)
        if done:
            self.ended.append((self._steps, self._return))
            self._return = 0.0
            info["terminal_observation"] = step.next_observation[0].numpy().astype(np.float32)
        return (
            step.observation.numpy().astype(np.float32),
            step.reward.numpy().astype(np.float32),
            np.array([done]),
            [info],
        )

    def exploded(self) -> int:
        """Episodes that left the finite."""
        return int(self._batch.failures.sum())

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


def raise_others(kind: str, task: Task, life: Lifetime, fates: Sequence[Fate]) -> Lived:
    """Lifetimes of ppo, td3 or sac, one after the other, each in the MDP of its fate."""
    lived = [_raise_one(kind, task, life, fate) for fate in fates]
    unknown = np.full(len(fates), np.nan)
    return Lived(
        final_return=np.array([final for final, _, _, _ in lived]),
        episode_returns=np.array([curve for _, curve, _, _ in lived]),
        kl=unknown,
        entropy=unknown,
        steps=sum(steps for _, _, steps, _ in lived),
        exploded=sum(exploded for _, _, _, exploded in lived),
    )


def _raise_one(
    kind: str, task: Task, life: Lifetime, fate: Fate
) -> tuple[float, np.ndarray, int, int]:
    """Final return, mean return of the episodes that ended before each update [U], steps, …"""
    mdp = draw_mdp(task, fate)
    bound = UNBOUNDED if kind == "ppo" else 1.0
    environment = Environment(task, mdp, fate.rng(Stream.RESET), bound)
    seed = int(fate.rng(Stream.ANOTHER_LIBRARY).integers(2**31))
    if kind == "ppo":
        seen = VecNormalize(environment, norm_reward=False, clip_obs=np.inf)
        model: BaseAlgorithm = _ppo(task, life, fate, seen, seed)
    else:
        model = _off_policy(kind, environment, life, seed)
    try:
        model.learn(life.steps)
    except ValueError as error:  # how the library says that its policy is not finite any more
        if "nan" not in str(error):
            raise
        return float("nan"), _curve(environment, life), life.steps, environment.exploded()
    final, steps = _final_return(model, task, mdp, fate, life.final_episodes)
    return final, _curve(environment, life), life.steps + steps, environment.exploded()


def _ppo(task: Task, life: Lifetime, fate: Fate, environment: VecEnv, seed: int) -> PPO:
    ours, sizes = Ppo(life.discount, life.gae_lambda), list(life.hidden)
    model = PPO(
        "MlpPolicy",
        environment,
        learning_rate=life.learning_rate,
        n_steps=life.steps_per_update,
        batch_size=life.minibatch,
        n_epochs=life.passes,
        gamma=ours.discount,
        gae_lambda=ours.gae_lambda,
        clip_range=ours.clip,
        vf_coef=1.0,
        max_grad_norm=float("inf"),
        policy_kwargs={
            "net_arch": {"pi": sizes, "vf": sizes},
            "activation_fn": ACTIVATIONS[life.activation],
            "optimizer_kwargs": {"eps": ADAM_EPSILON},
        },
        seed=seed,
        device="cpu",
    )
    newborn = bear(body_of(task, life), Fates([fate], [0]), life.train_memory)
    _copy(newborn, "policy", [*model.policy.mlp_extractor.policy_net, model.policy.action_net])
    _copy(newborn, "value", [*model.policy.mlp_extractor.value_net, model.policy.value_net])
    return model


def _copy(agents: Agents, name: str, modules: Sequence[torch.nn.Module]) -> None:
    """The networks of the first agent."""
    layers = [module for module in modules if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(agents.parameters[f"{name}.{i}.weight"][0].T)
            layer.bias.copy_(agents.parameters[f"{name}.{i}.bias"][0])


def _off_policy(kind: str, environment: Environment, life: Lifetime, seed: int) -> BaseAlgorithm:
    shared: dict[str, Any] = {
        "gamma": life.discount, "buffer_size": life.steps, "seed": seed, "device": "cpu",
    }  # fmt: skip
    if kind == "sac":
        return SAC("MlpPolicy", environment, **shared)
    size = environment.action_space.shape or ()
    noise = NormalActionNoise(np.zeros(size, np.float32), np.full(size, NOISE, np.float32))
    return TD3("MlpPolicy", environment, action_noise=noise, **shared)


def _curve(environment: Environment, life: Lifetime) -> np.ndarray:
    """[U] mean return of the episodes that ended before each update; NaN if none did."""
    curve = np.full(life.updates, np.nan)
    ends = np.array([(steps - 1) // life.steps_per_update for steps, _ in environment.ended])
    returns = np.array([value for _, value in environment.ended])
    for update in np.unique(ends):
        curve[update] = returns[ends == update].mean()
    return curve


def _final_return(
    model: BaseAlgorithm, task: Task, mdp: Mdp, fate: Fate, episodes: int
) -> tuple[float, int]:
    """Mean return of some episodes in the same starts as ours have; and their steps.

    PPO's policy samples its actions, as ours do; the others take what they hold for the best.
    """
    rngs = [fate.rng(Stream.FINAL_RESET, episode) for episode in range(episodes)]
    batch = task.batch([mdp] * episodes, rngs, restart=False)
    normaliser = model.get_vec_normalize_env()
    observation = batch.reset()
    returns, alive = torch.zeros(episodes, dtype=torch.float64), torch.ones(episodes) > 0
    steps = 0
    for _ in range(task.horizon):
        seen = observation.numpy().astype(np.float32)
        normal: Any = normaliser.normalize_obs(seen) if normaliser else seen
        actions, _ = model.predict(normal, deterministic=not isinstance(model, PPO))
        steps += int(alive.sum())
        step = batch.step(torch.from_numpy(actions))
        returns += step.reward
        observation = step.observation
        alive &= ~(step.terminated | step.truncated)
        if not alive.any():
            break
    return float(returns.mean()), steps
