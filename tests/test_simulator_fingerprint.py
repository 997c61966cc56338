"""Fingerprints tell an edited simulator from one of the same version, and runs of unlike ones are named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from edited_run import with_fingerprint
from synthetic_run import write_run

from reconverge.envs import demonstrations, simulator_fingerprint
from reconverge.envs.demonstrations import OtherSimulator, collect, collection_name, data_digest
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.episodes import EpisodeStore
from reconverge.envs.simulator_fingerprint import metaworld_digests, simulator_fingerprints
from reconverge.envs.tasks import find_task
from reconverge.eval.experiment import summarise
from reconverge.eval.mixed_fingerprints import mixed_fingerprints, warning
from reconverge.eval.run_results import RunResults, read_run

TASK, CONFIG = find_task("point-reach-0"), DemonstrationConfig(workers=0)


def test_a_fingerprint_needs_no_simulator() -> None:
    code = (
        "import sys; from reconverge.envs.simulator_fingerprint import simulator_fingerprints as s; "
        "from reconverge.envs.tasks import find_task as f; "
        "print(s([f('hammer'), f('push'), f('point-reach-1')])); assert not {'mujoco', 'metaworld', 'torch'} & set(sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'metaworld': 'metaworld 3.1.1, mujoco 3.3.0, models " in said and "'point-reach': 'point-reach 1'" in said


def test_a_gym_task_is_named_with_the_package_that_registers_it() -> None:
    from dataclasses import replace

    import gymnasium

    found = simulator_fingerprints([replace(TASK, name="gym:MountainCarContinuous-v0", family="gym")])
    assert found == {"gym:MountainCarContinuous-v0": f"gymnasium {gymnasium.__version__}, environment MountainCarContinuous-v0"}


def test_an_environment_of_ones_own_is_named_with_the_file_that_defines_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    (tmp_path / "mine.py").write_text("GAIN = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    gymnasium.register("Mine-v3", "mine:Mine")
    try:
        first = simulator_fingerprint.gym_fingerprint("mine:Mine-v3")
        assert ", mine absent, file mine.py " in first and simulator_fingerprint.gym_fingerprint("Mine").startswith(
            f"gymnasium {gymnasium.__version__}, environment Mine, that is Mine-v3, mine absent, file mine.py "
        )
        (tmp_path / "mine.py").write_text("GAIN = 2\n")
        assert simulator_fingerprint.gym_fingerprint("mine:Mine-v3") != first
    finally:
        del gymnasium.registry["Mine-v3"]


def test_so_is_one_that_its_package_hands_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium

    (tmp_path / "handed_on").mkdir()
    (tmp_path / "handed_on" / "__init__.py").write_text("from handed_on.grid import Grid\n")
    (tmp_path / "handed_on" / "grid.py").write_text("class Grid:\n    gain = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    gymnasium.register("Grid-v0", "handed_on:Grid")
    try:
        first = simulator_fingerprint.gym_fingerprint("Grid-v0")
        assert "file __init__.py " in first and "file grid.py " in first
        (tmp_path / "handed_on" / "grid.py").write_text("class Grid:\n    gain = 2\n")
        assert simulator_fingerprint.gym_fingerprint("Grid-v0") != first
    finally:
        del gymnasium.registry["Grid-v0"]
        for name in ("handed_on", "handed_on.grid"):
            sys.modules.pop(name, None)


def test_any_changed_model_or_line_of_code_changes_the_digests(tmp_path: Path) -> None:
    (tmp_path / "assets" / "meshes").mkdir(parents=True)
    (tmp_path / "assets" / "a.xml").write_text("<a/>")
    (tmp_path / "assets" / "meshes" / "b.stl").write_bytes(b"mesh")
    (tmp_path / "c.py").write_text("pass")
    models, code = metaworld_digests(tmp_path)
    (tmp_path / "assets" / "meshes" / "b.stl").write_bytes(b"mash")
    assert metaworld_digests(tmp_path)[0] != models and metaworld_digests(tmp_path)[1] == code
    (tmp_path / "c.py").write_text("pass ")
    assert metaworld_digests(tmp_path)[1] != code
    assert metaworld_digests(None) == ("unknown", "unknown")


# demonstrations ------------------------------------------------------------------------------------------------------------------------------


def test_demonstrations_of_another_simulator_are_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect(TASK, CONFIG, 5, tmp_path)
    assert EpisodeStore(tmp_path / collection_name(TASK, CONFIG, 5)).read()[1]["simulator"] == "point-reach 1"
    monkeypatch.setattr(demonstrations, "simulator_fingerprint", lambda task: "point-reach 1, edited")
    with pytest.raises(OtherSimulator, match=r"another simulator \(point-reach 1\) than is installed \(point-reach 1, edited\)"):
        collect(TASK, CONFIG, 5, tmp_path)
    monkeypatch.undo()
    assert data_digest(collect(TASK, CONFIG, 5, tmp_path)) == data_digest(first)


def test_earlier_demonstrations_do_not_say_and_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = collect(TASK, CONFIG, 5, tmp_path)
    store = EpisodeStore(tmp_path / collection_name(TASK, CONFIG, 5))
    store.write(first.episodes, {"attempts": first.attempts})
    monkeypatch.setattr(demonstrations, "simulator_fingerprint", lambda task: "another")
    assert data_digest(collect(TASK, CONFIG, 5, tmp_path)) == data_digest(first)


def test_the_data_digest_is_of_every_byte_that_is_learned_from() -> None:
    from dataclasses import replace

    found = collect(TASK, CONFIG, 3)
    same = data_digest(found)
    assert same == data_digest(collect(TASK, CONFIG, 3)) and len(same) == 64
    first = found.episodes[0]
    flipped = first.success.copy()
    flipped[0] ^= True
    others = [
        replace(first, seed=first.seed + 1),
        replace(first, observations=first.observations + 1e-6),
        replace(first, actions=first.actions * 0.5),
        replace(first, success=flipped),
    ]
    digests = {data_digest(replace(found, episodes=[other, *found.episodes[1:]])) for other in others}
    digests.add(data_digest(replace(found, episodes=found.episodes[:2])))
    digests.add(data_digest(replace(found, episodes=found.episodes[::-1])))
    assert len(digests | {same}) == 7


# runs that are compared ----------------------------------------------------------------------------------------------------------------------


def run_with(folder: Path, **fingerprint: object) -> RunResults:
    return read_run(with_fingerprint(write_run(folder, method=folder.name), **fingerprint))


PINNED = {"torch": "2.13.0", "mujoco": "3.3.0", "metaworld": "3.1.1"}


def test_unlike_simulators_and_versions_are_named_with_their_runs(tmp_path: Path) -> None:
    one = run_with(tmp_path / "replay", versions=PINNED, simulators={"metaworld": "metaworld 3.1.1, mujoco 3.3.0, models aa, code cc"})
    two = run_with(tmp_path / "ewc", versions=PINNED, simulators={"metaworld": "metaworld 3.1.1, mujoco 3.3.0, models bb, code cc"})
    assert mixed_fingerprints([one, two]) == [f"the simulator metaworld (models aa, code cc: {one.folder}; models bb, code cc: {two.folder})"]
    three = run_with(tmp_path / "finetune", versions={**PINNED, "mujoco": "3.4.0"})
    assert mixed_fingerprints([one, three]) == [f"the version of mujoco (3.3.0: {one.folder}; 3.4.0: {three.folder})"]
    assert warning([one, two]).startswith("warning: these runs differ in the simulator metaworld (models aa")


def test_what_an_older_run_does_not_say_is_no_difference(tmp_path: Path) -> None:
    one = run_with(tmp_path / "replay", versions=PINNED, simulators={"metaworld": "metaworld 3.1.1, mujoco 3.3.0, models aa"})
    old = run_with(tmp_path / "ewc", versions=PINNED)
    silent = run_with(tmp_path / "finetune", versions={})
    assert mixed_fingerprints([one, old]) == mixed_fingerprints([one, silent]) == [] and warning([one, old]) == ""


def test_the_warnings_of_an_experiment_name_them(tmp_path: Path) -> None:
    one = run_with(tmp_path / "replay", versions=PINNED)
    two = run_with(tmp_path / "ewc", versions={**PINNED, "metaworld": "3.0.0"})
    assert f"the version of metaworld (3.1.1: {one.folder}; 3.0.0: {two.folder})" in summarise([one, two]).warnings


def test_the_digests_are_made_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = simulator_fingerprint.metaworld_fingerprint()
    monkeypatch.setattr(simulator_fingerprint, "metaworld_digests", lambda package: pytest.fail("read again"))
    assert simulator_fingerprint.metaworld_fingerprint() == first


def test_an_option_that_is_a_long_text_names_no_file() -> None:
    """Such as a model that is given as it stands."""
    assert ", file " not in simulator_fingerprint.gym_fingerprint(f'Reacher-v5?xml_file="{"x" * 300}"')
