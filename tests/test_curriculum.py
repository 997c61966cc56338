"""Curricula by name and from a file that may be wrong in any way."""

import time
from pathlib import Path

import pytest

from reconverge.envs.curriculum import CURRICULA, CW10, load_curriculum
from reconverge.envs.errors import CurriculumError, UnknownName


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "mine.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_every_named_curriculum_loads() -> None:
    for name, names in CURRICULA.items():
        stages = load_curriculum(name).stages
        assert [stage.task.name for stage in stages] == list(names)
        assert [stage.number for stage in stages] == list(range(1, len(names) + 1))


def test_cw20_visits_the_ten_tasks_twice() -> None:
    curriculum = load_curriculum("cw20")
    assert len(curriculum.stages) == 20
    assert [task.name for task in curriculum.tasks] == list(CW10)


def test_a_prefix_takes_the_first_stages() -> None:
    curriculum = load_curriculum("cw10:3")
    assert curriculum.name == "cw10:3"
    assert [stage.task.name for stage in curriculum.stages] == ["hammer-v3", "push-wall-v3", "faucet-close-v3"]


@pytest.mark.parametrize("prefix", ["0", "11", "-1", "", "x", "1.0", "²", "9" * 5000])
def test_a_prefix_out_of_range_is_refused(prefix: str) -> None:
    with pytest.raises(CurriculumError, match="between 1 and 10"):
        load_curriculum(f"cw10:{prefix}")


def test_a_random_order_is_a_function_of_its_number() -> None:
    orders = [[stage.task.name for stage in load_curriculum(f"cw10:shuffle-{number}").stages] for number in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert all(sorted(order) == sorted(CW10) and order != list(CW10) for order in orders)


def test_an_unknown_curriculum_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'cw10'"):
        load_curriculum("cw1")


def test_a_file_sets_amounts_for_all_stages_and_for_one(written) -> None:
    curriculum = load_curriculum(written("name: ours\ntasks: [hammer, {task: push-v3, updates: 30, demonstrations: 7}, hammer]\nupdates: 15\n"))
    assert curriculum.name == "ours"
    assert [(s.task.name, s.updates, s.demonstrations) for s in curriculum.stages] == [
        ("hammer-v3", 15, None),
        ("push-v3", 30, 7),
        ("hammer-v3", 15, None),
    ]
    assert len(curriculum.tasks) == 2


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", CurriculumError, "must be a mapping"),
        ("- hammer", CurriculumError, "must be a mapping"),
        ("name: x", CurriculumError, "'tasks' must be a list"),
        ("tasks: []", CurriculumError, "'tasks' must be a list"),
        ("tasks: hammer", CurriculumError, "'tasks' must be a list"),
        ("tasks: [hammer]\nupdatess: 3", UnknownName, "did you mean 'updates'"),
        ("tasks: [{task: hammer, update: 3}]", UnknownName, "stage 1; did you mean 'updates'"),
        ("tasks: [hammer, hamer-v3]", UnknownName, "stage 2; did you mean 'hammer-v3'"),
        ("tasks: [3]", CurriculumError, "stage 1: 3 is neither"),
        ("tasks: [null]", CurriculumError, "stage 1: None is neither"),
        ("tasks: [{updates: 3}]", CurriculumError, "'task' must be the name"),
        ("tasks: [hammer]\nupdates: -1", CurriculumError, "'updates' must be a whole number"),
        ("tasks: [hammer]\nupdates: 0", CurriculumError, "'updates' must be a whole number"),
        ("tasks: [hammer]\nupdates: 1.5", CurriculumError, "'updates' must be a whole number"),
        ("tasks: [hammer]\nupdates: true", CurriculumError, "'updates' must be a whole number"),
        ("tasks: [hammer]\nupdates: .inf", CurriculumError, "'updates' must be a whole number"),
        ("tasks: [hammer]\nupdates:", CurriculumError, "'updates' must be a whole number"),
        ("tasks: [{task: hammer, demonstrations: many}]", CurriculumError, "stage 1: 'demonstrations' must be"),
        ("tasks: [hammer]\nupdates: " + "9" * 5000, CurriculumError, "updates|valid YAML"),
        ("tasks: [hammer]\nname: 7", CurriculumError, "'name' must be text"),
        ("tasks: [hammer]\ntasks: [push]", CurriculumError, "'tasks' is given twice"),
        ("tasks: [hammer, point-reach-0]", CurriculumError, "'point-reach-0' has 4 observations and 2 actions"),
        ("tasks: [hammer", CurriculumError, "not valid YAML"),
        ("tasks: !!python/object/apply:os.system [exit]", CurriculumError, "not valid YAML"),
        ("a: &a [x]\ntasks: *a", CurriculumError, "aliases"),
        ("tasks: " + "[" * 200 + "]" * 200, CurriculumError, "nesting"),
        ("tasks: " + "[" * 30000, CurriculumError, "nesting|valid YAML"),
        ("tasks: [" + "hammer, " * 20000 + "]", CurriculumError, "larger than"),
        (b"tasks: [\xff]", CurriculumError, "not UTF-8"),
        (b"tasks: [\x00]", CurriculumError, "not valid YAML"),
        ("? [a, b]\n: c\ntasks: [hammer]", CurriculumError, "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_at_once(written, text: str | bytes, error: type[Exception], says: str) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=says):
        load_curriculum(written(text))
    assert time.monotonic() - started < 20.0


def test_many_double_keys_do_not_take_long(written) -> None:
    text = "".join(f"k{number}: 1\n" for number in range(7000))
    with pytest.raises(UnknownName):
        load_curriculum(written(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CurriculumError, match=r"nowhere\.yaml"):
        load_curriculum(str(tmp_path / "nowhere.yaml"))
