# %% [markdown]
# # A curriculum of MuJoCo tasks of one's own, from nothing to a report
#
# Gymnasium's Reacher, Reacher at half the control rate (an option of the environment), and Reacher with its torques reversed (a variant
# registered in `reacher_tasks.py`). The first two are demonstrated by experts that are trained here with stable-baselines3, the third by a
# scripted function. Run it in this folder: `python mujoco_curriculum.py` (five minutes on an idle core), or with `--quick` (under a
# minute, to see that it works; nothing is learned well).

# %%
import argparse
import functools
import shlex
from pathlib import Path
from types import SimpleNamespace

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.gym_name import read_gym_name
from reconverge.launch.cli import main

PARSER = argparse.ArgumentParser(
    description="Train experts for three Reacher tasks, train a policy on them in turn, and report: five minutes on an idle core, in runs/mujoco.",
    allow_abbrev=False,
)
PARSER.add_argument("--quick", action="store_true", help="under a minute, in runs/mujoco-quick, to see that it works; nothing is learned well")
IS_NOTEBOOK = "__file__" not in globals()  # whose command line is that of its server
QUICK = (PARSER.parse_known_args()[0] if IS_NOTEBOOK else PARSER.parse_args()).quick
WORK = Path("runs/mujoco-quick" if QUICK else "runs/mujoco")
WITHIN_M = 0.1 if QUICK else 0.02
SUCCESS = f"reward_dist>={-WITHIN_M}"


def reconverge(*words: str) -> None:
    """One command, as on the command line."""
    print(f"\n$ reconverge {shlex.join(words)}", flush=True)
    if code := main(words):
        raise SystemExit(code)


# %% [markdown]
# ## Experts
#
# Reacher reports no success, but its distance from the target, so a rule says what success is. What is kept of an expert are numbers, not
# code. (Work stands below `if __name__ == "__main__"`: simulators run in processes of their own, which import this file.)

# %%
if __name__ == "__main__":
    budget = ["--steps", "500", "--hidden", "32", "32"] if QUICK else ["--steps", "40000", "--hidden", "64", "64"]
    for folder, options in (("reacher", []), ("slow", ["--options", "frame_skip=4"])):
        words = ["--env", "Reacher-v5", *options, "--success", SUCCESS, *budget, "--learning-rate", "0.001"]
        reconverge("train-expert", *words, "--output-dir", str(WORK / folder), *(["--overwrite"] if (WORK / folder).exists() else []))

# %% [markdown]
# ## The curriculum, a file

# %%
CURRICULUM = f"""
name: reachers
tasks:
  - task: gym:Reacher-v5
    success: {{info: reward_dist, at_least: {-WITHIN_M}}}
    expert: "sb3:{WORK}/reacher"
  - task: gym:Reacher-v5
    options: {{frame_skip: 4}}
    success: {{info: reward_dist, at_least: {-WITHIN_M}}}
    expert: "sb3:{WORK}/slow"
  - task: gym:reacher_tasks:CrossedReacher-v0
    success: {{info: reward_dist, at_least: {-WITHIN_M}}}
    expert: "python:reacher_tasks:reach_crossed"
"""

if __name__ == "__main__":
    (WORK / "reachers.yaml").write_text(CURRICULUM)

# %% [markdown]
# ## Training
#
# The expert's own success is the ceiling of what imitation can reach; the table at the end shows both.

# %%
if __name__ == "__main__":
    sizes = ["--train.updates", "30", "--demonstrations.episodes", "5", "--evaluation.episodes", "4", "--recovery.episodes", "2"]
    sizes += ["--recovery.grid", "10", "--train.trust-region.draws", "64", "--replay.windows-per-task", "64", "--replay.generator.updates", "20"]
    sizes += ["--video.episodes", "0"]
    full = ["--train.updates", "2000", "--demonstrations.episodes", "100", "--evaluation.episodes", "50"]
    full += ["--recovery.grid", "10", "50", "200", "1000"]
    words = ["--preset", "smoke", "--curriculum", str(WORK / "reachers.yaml"), "--demonstrations.folder", str(WORK / "demonstrations")]
    reconverge("train", *words, *(sizes if QUICK else full), "--output-dir", str(WORK / "run"), "--overwrite")

# %% [markdown]
# ## The policy elsewhere
#
# It has the `predict` of stable-baselines3, so that library's own evaluation takes it, in Gymnasium's own environments. Actions are in
# [-1, 1], as Reacher has them; where an environment has other bounds, wrap it in `gymnasium.wrappers.RescaleAction`.

# %%
if __name__ == "__main__":
    import gymnasium
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    from reconverge.policy.diffusion_policy import DiffusionPolicy

    policy = DiffusionPolicy.load(WORK / "run" / "checkpoints" / "stage-03")
    for task in load_curriculum(str(WORK / "reachers.yaml")).tasks:
        name = read_gym_name(task.name)
        envs = DummyVecEnv([lambda name=name: Monitor(gymnasium.make(name.environment, **name.arguments))])
        envs.seed(0)
        of_one_task = SimpleNamespace(predict=functools.partial(policy.predict, task=task))
        mean, deviation = evaluate_policy(of_one_task, envs, n_eval_episodes=2 if QUICK else 20)
        print(f"{task.name}: return {mean:.2f}, standard deviation {deviation:.2f}")
