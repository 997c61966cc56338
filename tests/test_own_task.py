"""Any Gymnasium environment as a stage: names that hold all of a task, rules of success, experts by function."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import slider_world
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.demonstrations import collect, collection_name
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import CurriculumError, ReconvergeError, RenderingUnavailable, UnknownName, UnsupportedEnvironment
from reconverge.envs.expert_source import MissingExpert, UntrustedExpert, read_expert
from reconverge.envs.experts import check_expert, expert_for, to_unit
from reconverge.envs.gym_name import gym_name, read_gym_name, short_name
from reconverge.envs.own_task import own_curriculum, own_task
from reconverge.envs.simulator_fingerprint import simulator_fingerprint
from reconverge.envs.simulators import Simulators
from reconverge.envs.success_rule import SuccessRule, parse_rule, read_rule
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file, task_of_file
from reconverge.envs.tasks import find_task, make_env
from reconverge.launch.config import RunConfig
from reconverge.launch.job import content
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_plan import run_curriculum

ENV = "slider_world:OwnSlider-v0"
NEAR = {"info": "gap", "at_most": 0.1}
CONFIG = DemonstrationConfig(workers=0)


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


# Names ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gym:Pendulum-v1", "Pendulum"),
        ("gym:my_module:Env/v0", "Env/v0"),
        ("gym:Reacher-v5#reward_dist>=-0.05", "Reacher"),
        ("gym:Reacher-v5?frame_skip=4#reward_dist>=-0.05", "Reacher frame_skip=4"),
        ('gym:a.b:Own-v0?label="x%26y%23%25"&mass=[1,2.5]#return>=10.0', 'Own label="x%26y%23%25" mass=...'),
        ("hammer-v3", "hammer"),
    ],
)
def test_a_name_is_read_and_written_alike(name: str, shown: str) -> None:
    if name.startswith("gym:"):
        assert str(read_gym_name(name)) == name
    assert short_name(name) == shown
    assert task_of_file(task_file(name)) == name


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text("a%&#?=;:é 1", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
OPTIONS = st.dictionaries(st.text("abXY_", min_size=1, max_size=4), VALUES, max_size=3)
RULES = st.none() | st.builds(SuccessRule, st.sampled_from(["gap", "a.b/c"]), st.sampled_from([">=", "<="]), st.floats(-100, 100)) | st.just(
    SuccessRule("solved")
)


@given(OPTIONS, RULES, OPTIONS, RULES)
def test_two_tasks_that_differ_have_two_names(first, first_rule, second, second_rule) -> None:
    names = [gym_name("Own-v0", options, rule) for options, rule in ((first, first_rule), (second, second_rule))]
    assert (str(names[0]) == str(names[1])) == (names[0] == names[1])
    for name, options in zip(names, (first, second), strict=True):
        again = read_gym_name(str(name))
        assert str(again) == str(name) and again.arguments == options


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gym:A-v0?frame_skip", "key=VALUE"),
        ("gym:A-v0?x=1&x=2", "'x' is given twice"),
        ("gym:A-v0?x=NaN", "option 'x'"),
        ("gym:A-v0?x=" + "[" * 200 + "]" * 200, "option 'x'"),
        ("gym:A-v0?1x=2", "called like an argument"),
        ("gym:A-v0?render_mode=1", "'render_mode' is not an option"),
        ("gym:A-v0#", "no rule of success"),
        ("gym:A-v0#gap>0.1", "no rule of success"),
        ("gym:A-v0#gap>=1e999", "no finite bound"),
        ("gym:A-v0#return<=3", "no rule of success"),
        ("gym:" + "a" * 5000, "too long"),
    ],
)
def test_a_name_that_cannot_be_read_is_refused(name: str, says: str) -> None:
    with pytest.raises(CurriculumError, match=says):
        find_task(name)


# Success -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ({"info": "solved"}, "solved"),
        ({"info": "reward_dist", "at_least": -0.05}, "reward_dist>=-0.05"),
        ({"info": "gap", "at_most": 1}, "gap<=1.0"),
        ({"return_at_least": 90}, "return>=90.0"),
        ({"info": "gap", "at_most": -0.0}, "gap<=0.0"),
    ],
)
def test_a_rule_of_a_file_has_a_short_form(given: dict, short: str) -> None:
    assert str(read_rule(given, "here")) == short and parse_rule(short, "here") == read_rule(given, "here")


@pytest.mark.parametrize(
    "given",
    [None, [], "solved", {}, {"info": 3}, {"info": "a b"}, {"info": "return"}, {"at_least": 1}, {"info": "gap", "at_least": 1, "at_most": 2},
     {"info": "gap", "at_least": True}, {"info": "gap", "at_least": float("nan")}, {"return_at_least": 1, "info": "gap"}, {"inf": "gap"},
     {"info": "gap>=1"}, {"return_at_least": "many"}],
)  # fmt: skip
def test_a_rule_that_says_nothing_is_refused(given: object) -> None:
    with pytest.raises((CurriculumError, UnknownName), match="here"):
        read_rule(given, "here")


def test_a_return_is_judged_at_the_end() -> None:
    rule = SuccessRule("return", ">=", -5.0)
    assert not rule.holds({}, -1.0, False) and rule.holds({}, -5.0, True) and not rule.holds({}, -5.1, True)
    assert not SuccessRule("gap", "<=", 1.0).holds({"gap": np.nan}, 0.0, True) and not SuccessRule("gap").holds({}, 0.0, True)


def test_a_bound_belongs_to_success() -> None:
    for relation in ("<=", ">="):
        assert SuccessRule("gap", relation, 1.0).holds({"gap": 1.0}, 0.0, False)
    assert not SuccessRule("gap", ">=", 1.0).holds({"gap": 0.99}, 0.0, False)
    assert not SuccessRule("solved").holds({}, 0.0, True)  # a flag that is not reported


def test_large_bounds_are_numbers_and_larger_ones_mistakes() -> None:
    assert read_rule({"return_at_least": 90_000}, "here").bound == 90_000.0
    with pytest.raises(CurriculumError, match="must be a number"):
        read_rule({"return_at_least": 1e16}, "here")


def test_at_least_and_at_most_exclude_each_other() -> None:
    with pytest.raises(CurriculumError, match="alone or with one of"):
        read_rule({"info": "gap", "at_least": 1, "at_most": 2}, "here")


def test_an_environment_succeeds_by_its_rule() -> None:
    near, far, whole = (own_task(ENV, success=rule) for rule in (NEAR, {"info": "gap", "at_least": 0.1}, {"return_at_least": -1000}))
    assert _successes(near)[0] is False and _successes(near)[-1] is True
    assert _successes(far) == [not success for success in _successes(near)]
    assert _successes(whole) == [False] * 24 + [True]
    assert near.success == "info['gap'] is at most 0.1" and "at least -1000" in whole.success


def _successes(task: Task) -> list[bool]:
    """Per step of an episode in which the expert pushes."""
    env, found = make_env(task), []
    observation, _ = env.reset(seed=1)
    for _ in range(task.horizon):
        observation, _, _, _, info = env.step(to_unit(slider_world.push(observation), task))
        found.append(info["success"])
    return found


@pytest.mark.parametrize(
    ("success", "says"),
    [
        (None, r"reports neither .* success: \{info: KEY, at_least: X\}.*it reports gap, solved, word"),
        ({"info": "gab", "at_most": 1}, r"no info\['gab'\].*it reports gap, solved, word"),
        ({"info": "word", "at_most": 1}, r"info\['word'\] is 'x', which no bound"),
    ],
)
def test_an_environment_that_does_not_report_it_is_refused_with_what_it_reports(success, says: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match=says):
        own_task(ENV, success=success)


# Options -------------------------------------------------------------------------------------------------------------------------


def test_options_change_the_environment_and_are_another_task() -> None:
    plain, strong = own_task(ENV, success=NEAR), own_task(ENV, success=NEAR, options={"gain": 2.0})
    moved = []
    for task in (plain, strong):
        env = make_env(task)
        first, _ = env.reset(seed=3)
        moved.append(env.step(np.ones(1))[0] - first)
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-5)
    assert plain.name != strong.name and collection_name(plain, CONFIG, 3) != collection_name(strong, CONFIG, 3)
    assert find_task(strong.name) == strong  # the name alone makes it again


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnsupportedEnvironment, match=r"cannot be made.*weight"):
        own_task(ENV, options={"weight": 2}, success=NEAR)
    with pytest.raises(CurriculumError, match="'gain' is"):
        own_task(ENV, options={"gain": object()}, success=NEAR)


def test_a_file_that_an_option_names_is_in_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text("one")
    task = own_task(ENV, options={"label": str(path)}, success=NEAR)
    before = simulator_fingerprint(task)
    path.write_text("two")
    assert "file model.xml" in before and simulator_fingerprint(task) != before


# Pictures ------------------------------------------------------------------------------------------------------------------------


def test_a_picture_is_of_the_episode_that_was_reset_last() -> None:
    env = make_env(own_task("slider_world:Painted-v0", success=NEAR))
    for seed in (1, 2, 1):
        env.reset(seed=seed)
        assert (env.draw(env.physics_state(), 8, 6) == env._env.unwrapped.goal).all()  # type: ignore[attr-defined]


def test_an_environment_that_cannot_be_drawn_says_so_and_is_evaluated_all_the_same() -> None:
    env = make_env(own_task(ENV, success=NEAR))
    env.reset(seed=1)
    with pytest.raises(RenderingUnavailable, match=r"OwnSlider-v0.* was not drawn: .*render_mode.*; set video.render to false"):
        env.draw(env.physics_state(), 8, 8)
    env._env.unwrapped.state = {"x": 0.0}  # type: ignore[attr-defined]
    assert env.physics_state().size == 0
    with pytest.raises(RenderingUnavailable, match="shows no physics state"):
        env.draw(env.physics_state(), 8, 8)


# Experts -------------------------------------------------------------------------------------------------------------------------


def test_an_expert_that_plans_for_long_does_not_hang() -> None:
    task = own_task(ENV, success=NEAR, expert=slider_world.ponder)
    with Simulators(1, timeout_s=1.0) as pool:
        pool.run_expert(task, [1], 5)
        assert pool.replaced == 0


def test_a_function_demonstrates_in_its_own_units_and_workers_change_nothing(tmp_path: Path) -> None:
    task = own_task(ENV, success=NEAR, expert=slider_world.push)
    assert str(task.expert) == "python:slider_world:push"
    found, again = collect(task, CONFIG, 12), collect(task, dataclasses.replace(CONFIG, workers=1), 12, tmp_path)
    assert found.ceiling == 1.0 and max(np.abs(episode.actions).max() for episode in found.episodes) == 1.0
    for one, other in zip(found.episodes, again.episodes, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)
    env = make_env(task)
    env.reset(seed=found.episodes[0].seed)
    env.step(found.episodes[0].actions[0].astype(float))
    assert env._env.unwrapped.last_action == pytest.approx(slider_world.push(found.episodes[0].observations[0]))  # type: ignore[attr-defined]


def test_a_scripted_expert_of_a_built_in_task_may_be_replaced() -> None:
    task = dataclasses.replace(find_task("point-reach-0"), expert=read_expert("python:slider_world:too_many", "here"))
    assert collection_name(task, CONFIG, 3) != collection_name(find_task("point-reach-0"), CONFIG, 3)
    with pytest.raises(UnsupportedEnvironment, match=r"shape \(3,\).*takes 2 finite numbers"):
        expert_for(task).act(np.zeros(4))


@pytest.mark.parametrize(
    ("expert", "error", "says"),
    [
        ("slider_world:push", UnknownName, "kind of expert 'slider_world'.*python:MODULE:FUNCTION"),
        ("pyton:slider_world:push", UnknownName, "did you mean 'python'"),
        ("python:slider_world", CurriculumError, "must be one of python:MODULE"),
        ("python:slider_world:push()", CurriculumError, "must be one of"),
        ("python:os:system", MissingExpert, "a module of your own, not of 'os'"),
        ("python:__main__:f", MissingExpert, "a module of your own"),
        ("python:no_such_module:f", MissingExpert, "PYTHONPATH"),
        ("python:no.such.module:f", MissingExpert, "PYTHONPATH"),
        ("sb3:nowhere", MissingExpert, "reconverge train-expert"),
        ("minari:no/such-v0", MissingExpert, "minari download"),
        ("lerobot:nowhere", MissingExpert, "info.json"),
        ("sb3:", CurriculumError, "must be one of"),
        (7, CurriculumError, "not 7"),
    ],
)
def test_an_expert_that_is_not_there_is_refused(expert: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read_expert(expert, "stage 2")


def test_actions_are_put_between_the_bounds_and_one_that_can_have_a_single_value_is_0() -> None:
    task = dataclasses.replace(find_task("point-reach-0"), action_bounds=((0.0, 3.0), (4.0, 3.0)))
    np.testing.assert_array_equal(to_unit(np.array([[1.0, 3.0], [9.0, 3.0]]), task), [[-0.5, 0.0], [1.0, 0.0]])


def test_a_function_that_cannot_be_used_is_refused() -> None:
    for name in ("nothing", "NUMBER"):
        with pytest.raises(MissingExpert, match=name):
            check_expert(own_task(ENV, success=NEAR, expert=f"python:slider_world:{name}"))
    with pytest.raises(UnsupportedEnvironment, match="not finite"):
        expert_for(own_task(ENV, success=NEAR, expert=slider_world.not_a_number)).act(np.zeros(1))
    with pytest.raises(CurriculumError, match="module such as"):
        own_task(ENV, success=NEAR, expert=lambda observation: observation)
    with pytest.raises(UnsupportedEnvironment, match=r"no scripted expert.*docs/own_task\.md"):
        check_expert(own_task(ENV, success=NEAR))


def test_an_expert_that_was_changed_is_another_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "changing_expert.py"
    module.write_text("from slider_world import push\n")
    before = own_task(ENV, success=NEAR, expert="python:changing_expert:push")
    module.write_text("from slider_world import push  # otherwise\n")
    after = own_task(ENV, success=NEAR, expert="python:changing_expert:push")
    assert collection_name(before, CONFIG, 3) != collection_name(after, CONFIG, 3)
    assert before.name == after.name
    with pytest.raises(MissingExpert, match="was changed since"):
        collect(before, CONFIG, 3)
    sys.modules.pop("changing_expert", None)


def test_an_archive_needs_trust_in_the_users_own_file(written, tmp_path: Path) -> None:
    archive = tmp_path / "mine.zip"
    archive.write_bytes(b"x")
    stage = f'{{task: "{ENV_TASK}", expert: "sb3:{archive}"'
    with pytest.raises(UntrustedExpert, match=r"stage 1.*unpickled.*`trusted: true`"):
        load_curriculum(written(f"tasks: [{stage}}}]"))
    path = written(f"tasks: [{stage}, trusted: true}}]")
    expert = load_curriculum(path).tasks[0].expert
    assert expert is not None and expert.trusted
    with pytest.raises(UntrustedExpert):
        load_curriculum(path, trusting=False)
    kept = load_curriculum(written(load_curriculum(path).to_yaml()), trusting=False).tasks[0]  # as in a run folder
    assert kept.expert is not None and not kept.expert.trusted
    with pytest.raises(UntrustedExpert, match="run folder's word"):
        expert_for(kept)


def test_a_run_folder_does_not_bring_its_own_trust(written, tmp_path: Path) -> None:
    """Its configuration names the curriculum: one that lies beside it is anybody's."""
    (tmp_path / "mine.zip").write_bytes(b"x")
    path = written(f'tasks: [{{task: "{ENV_TASK}", expert: "sb3:{tmp_path / "mine.zip"}", trusted: true}}]')
    with pytest.raises(UntrustedExpert):
        run_curriculum(RunFolder(tmp_path / "run"), RunConfig(curriculum=str(path)))


# Curricula -----------------------------------------------------------------------------------------------------------------------

ENV_TASK = f"gym:{ENV}#gap<=0.1"


def test_a_file_brings_environments_and_experts_and_is_written_back_alike(written) -> None:
    first = load_curriculum(
        written(f"""
name: mine
tasks:
  - {{task: "gym:{ENV}", success: {{info: gap, at_most: 0.1}}, expert: "python:slider_world:push", updates: 7}}
  - {{task: "gym:{ENV}", options: {{gain: 2.0}}, success: {{info: gap, at_most: 0.1}}, expert: "python:slider_world:push"}}
  - "{ENV_TASK}"
""")
    )
    assert [stage.task.name for stage in first.stages] == [ENV_TASK, f"gym:{ENV}?gain=2.0#gap<=0.1", ENV_TASK]
    assert first.stages[2].task == first.stages[0].task  # the expert of a task that comes again is known
    again = load_curriculum(written(first.to_yaml()))
    assert again == first
    assert own_curriculum("mine", [stage.task for stage in first.stages]).tasks == first.tasks


def test_the_expert_is_part_of_a_jobs_content_and_other_jobs_stay_as_they_were(written) -> None:
    text = f'tasks: [{{task: "{ENV_TASK}", expert: "python:slider_world:NAME"}}]'
    stages = [content(RunConfig(), load_curriculum(written(text.replace("NAME", name))), {})["stage 1"] for name in ("push", "too_many")]
    assert stages[0] != stages[1] and "expert python:slider_world:push" in stages[0]
    assert content(RunConfig(), load_curriculum("point-reach:1"), {})["stage 1"].endswith("demonstrations")


@pytest.mark.parametrize(
    ("stages", "error", "says"),
    [
        ("{task: hammer, options: {a: 1}}", CurriculumError, "stage 1: 'options' is for Gymnasium"),
        ("{task: hammer, success: {info: x}}", CurriculumError, "'success' is for Gymnasium"),
        ("{task: TASK, success: {info: gap, at_most: 1}}", CurriculumError, "'success' is given twice"),
        ("{task: TASK, trusted: true}", CurriculumError, "'trusted' goes with 'expert'"),
        ("{task: TASK, expert_digest: abc}", CurriculumError, "'expert_digest' goes with 'expert'"),
        ("{task: TASK, expert: 'python:slider_world:push', expert_digest: abc}", CurriculumError, "16 hexadecimal digits"),
        ("{task: TASK, expert: 'python:slider_world:push', trusted: 1}", CurriculumError, "'trusted' must be true or false"),
        ("{task: 'gym:ENV', success: {info: gap, at_mots: 1}}", UnknownName, "did you mean 'at_most'"),
        ("{task: 'gym:ENV', options: [1]}", CurriculumError, "'options' must be a mapping"),
        ("{task: 'gym:ENV', options: {render_mode: human}}", CurriculumError, "leave it out"),
        ("{task: TASK, expert: 'python:slider_world:push'}, {task: TASK, expert: 'python:slider_world:too_many'}", CurriculumError, "two experts"),
        ("TASK, {task: 'gym:ENV', options: {sizes: 2}, success: {info: gap, at_most: 0.1}}", CurriculumError, "has 2 observations and 1 actions"),
        ("{task: 'gym:ENV', expertt: x}", UnknownName, "did you mean 'expert'"),
        ("{task: 'gym:ENV', options: {gain: 2020-01-01}}", CurriculumError, "option 'gain'"),
    ],
)
def test_a_wrong_stage_is_refused(written, stages: str, error: type[ReconvergeError], says: str) -> None:
    with pytest.raises(error, match=says):
        load_curriculum(written(f"tasks: [{stages.replace('TASK', repr(ENV_TASK)).replace('ENV', ENV)}]"))
