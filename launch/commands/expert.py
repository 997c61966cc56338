"""`reconverge train-expert`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from reconverge.envs.errors import ConfigError, CurriculumError, DamagedFile, UnsupportedEnvironment, shown
from reconverge.envs.gym_name import GymName, gym_name, read_gym_name
from reconverge.envs.success_rule import RETURN, SuccessRule, parse_rule
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task
from reconverge.launch.commands.command import Command, Several, at_least
from reconverge.launch.progress import Progress

if TYPE_CHECKING:
    from reconverge.launch.train_expert import ExpertScore

EPISODES = 100
"""Episodes over which the result is scored."""


@dataclass(frozen=True)
class TrainExpert(Command):
    """Train an expert for a Gymnasium environment with stable-baselines3; a curriculum names it as `expert: "sb3:FOLDER"`.

    What is kept are the actor's weights and the scaling of its observations, as numbers without code. Ctrl-C ends the training early and
    keeps what has been learned.

    Examples:
      reconverge train-expert --env Reacher-v5 --success "reward_dist>=-0.05" --algo sac --steps 20000 --output-dir runs/experts/reacher
      reconverge train-expert --env Reacher-v5 --options frame_skip=4 --success "reward_dist>=-0.05" --output-dir runs/experts/slow
      reconverge train-expert --env my_package.tasks:Reach-v0 --algo ppo --normalize --steps 300000 --output-dir runs/experts/reach
    """

    summary: ClassVar[str] = "an expert for an environment of your own, with stable-baselines3"

    env: str
    """Environment: `[MODULE:]ID`, or the whole name of a task, `gym:ID?option=value#rule`."""
    output_dir: Path
    """Folder of the expert; it must not exist yet."""
    algo: Literal["sac", "td3", "ppo"] = "sac"
    """Algorithm of stable-baselines3."""
    steps: int = 100_000
    """Environment steps."""
    options: Several[str] = ()
    """Options of the environment, KEY=VALUE with the value in JSON."""
    success: str = ""
    """What counts as success where the environment does not say: `is_solved`, `reward_dist>=-0.05` or `return>=90`. Only scored, not trained on."""
    normalize: bool = False
    """Scale observations and rewards by their running statistics."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers."""
    learning_rate: float = 3e-4
    """Learning rate."""
    seed: int = 0
    """Seed of weights, exploration and episodes."""
    threads: int = 1
    """Torch threads."""
    overwrite: bool = False
    """Replace the expert that the folder holds."""
    quiet: bool = False
    """Show no progress."""

    def run(self, command_line: str) -> int:
        name = self._name()
        self._check_numbers()
        task, scored = _scored_task(name)
        self._check_folder()
        import torch

        from reconverge.launch.train_expert import ExpertTraining, score

        torch.set_num_threads(self.threads)
        training = ExpertTraining(name, self.algo, self.steps, self.seed, self.normalize, self.hidden, self.learning_rate)
        with Progress.in_terminal(self.quiet) as progress:
            with progress.phase(f"{self.algo} on {name}", self.steps) as tick:
                actor = training.run(lambda learned: learned.save(self.output_dir), tick)
            with progress.phase("score", EPISODES):
                found = score(actor, task, EPISODES)
        _print_score(found, scored)
        if actor.facts["steps"] < self.steps:
            raise KeyboardInterrupt(f"{self.output_dir} holds the expert after {actor.facts['steps']} of {self.steps} steps, which can be used")
        print(f'in a stage: {{task: "{name}", expert: "sb3:{self.output_dir}"}}')
        return 0

    def _name(self) -> GymName:
        """The task's name, from --env with what --options and --success add."""
        known = read_gym_name(self.env)
        options = known.arguments
        for word in self.options:
            key, equals, value = word.partition("=")
            if not equals or key in options:
                raise ConfigError(f"--options {shown(word)}: give every option once, as KEY=VALUE such as frame_skip=4")
            options[key] = _option(key, value)
        rule = known.success
        if self.success:
            if rule is not None:
                raise ConfigError(f"--success {self.success}: the rule is given twice, in --env too")
            rule = parse_rule(self.success, "--success")
        return gym_name(known.environment, options, rule, "--options")

    def _check_numbers(self) -> None:
        for flag, value, low in (("--steps", self.steps, 1), ("--threads", self.threads, 1), ("--seed", self.seed, 0)):
            at_least(flag, value, low)
        if not self.hidden or min(self.hidden) < 1 or max(self.hidden) > 4096 or len(self.hidden) > 16:
            raise ConfigError(f"--hidden is {self.hidden}; give 1 to 16 widths from 1 to 4096")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"--learning-rate is {self.learning_rate}; it must be above 0 and at most 1")

    def _check_folder(self) -> None:
        """Only an expert is ever replaced: whatever else the folder may hold stays."""
        from reconverge.envs.actor_network import SETTINGS

        if not self.output_dir.exists():
            return
        if not (self.output_dir / SETTINGS).is_file():
            raise ConfigError(f"--output-dir {self.output_dir} exists and holds no expert; name a folder that does not exist yet")
        if not self.overwrite:
            raise ConfigError(f"--output-dir {self.output_dir} holds an expert already; name another folder, or replace it with --overwrite")


def _option(key: str, value: str) -> object:
    """A value in JSON; a text may stand without its quotes."""
    from reconverge.envs.plain_json import parse_json

    try:
        return parse_json(value.encode(errors="surrogatepass"), f"--options {key}")
    except DamagedFile:
        return value


def _scored_task(name: GymName) -> tuple[Task, bool]:
    """The task to score in, and whether it says what success is; without that only the rewards are shown."""
    try:
        return find_task(str(name)), True
    except (UnsupportedEnvironment, CurriculumError):
        if name.success is not None:
            raise
        any_return = SuccessRule(RETURN, ">=", -1e15)
        return find_task(str(gym_name(name.environment, name.arguments, any_return))), False


def _print_score(found: ExpertScore, scored: bool) -> None:
    from reconverge.eval.intervals import wilson

    rewards = f"return {found.returns.mean():.2f} (standard deviation {found.returns.std():.2f})"
    if not scored:
        print(f"{rewards} over {found.episodes} episodes; the environment reports no success: give a rule with --success")
        return
    low, high = wilson(found.successes, found.episodes)
    interval = f"{100 * low:.0f} to {100 * high:.0f}"
    print(f"success {100 * found.successes / found.episodes:.0f} % ({interval}) of {found.episodes} episodes; {rewards}")
