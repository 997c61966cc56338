"""Demonstrations: the same bytes for any number of workers and after any interruption."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folder_contents import contents

from reconverge.envs.demonstrations import (
    BATCH,
    Demonstrations,
    _first_successes,
    batch_folder,
    collect,
    collect_batch,
    collect_from,
    collection_name,
    data_digest,
    missing_batches,
)
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.episodes import Episode, EpisodeStore, episode_seed
from reconverge.envs.errors import DamagedFile, UnsupportedEnvironment
from reconverge.envs.expert_source import ExpertSource
from reconverge.envs.experts import Sb3Expert, expert_for
from reconverge.envs.seeding import numpy_stream
from reconverge.envs.simulators import Simulators
from reconverge.envs.tasks import find_task, make_env

TASK = find_task("point-reach-1")
CONFIG = DemonstrationConfig(workers=0)


def test_the_number_of_workers_and_an_interruption_change_no_byte(tmp_path: Path) -> None:
    whole = collect(TASK, CONFIG, 45, tmp_path / "whole")
    collect(TASK, replace(CONFIG, workers=2), 45, tmp_path / "two")

    def interrupt(done: int, wanted: int) -> None:
        if done >= 2 * BATCH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(TASK, CONFIG, 45, tmp_path / "resumed", interrupt)
    assert len(list((tmp_path / "resumed").glob("*.partial/batch-*"))) == 2
    collect(TASK, CONFIG, 45, tmp_path / "resumed")

    assert contents(tmp_path / "whole") == contents(tmp_path / "two") == contents(tmp_path / "resumed")
    assert (whole.successes, whole.attempts, whole.ceiling) == (45, 45, 1.0)


def test_an_interrupted_collection_does_not_repeat_its_batches(tmp_path: Path) -> None:
    class Counted(Simulators):
        asked = 0

        def run_expert(self, task, episode_seeds, hold_steps, *settings):  # type: ignore[no-untyped-def]
            Counted.asked += len(episode_seeds)
            return super().run_expert(task, episode_seeds, hold_steps, *settings)

    def interrupt(done: int, wanted: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(TASK, CONFIG, 30, tmp_path, interrupt, Counted(0))
    collect(TASK, CONFIG, 30, tmp_path, simulators=Counted(0))
    assert Counted.asked == 2 * BATCH


def test_a_finished_collection_is_read_not_repeated(tmp_path: Path) -> None:
    first = collect(TASK, CONFIG, 10, tmp_path)
    second = collect(TASK, CONFIG, 10, tmp_path, lambda done, wanted: pytest.fail("collected again"))
    same(first, second)


def test_a_damaged_collection_is_collected_again(tmp_path: Path) -> None:
    first = collect(TASK, CONFIG, 10, tmp_path)
    path = tmp_path / collection_name(TASK, CONFIG, 10) / "episodes.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    same(first, collect(TASK, CONFIG, 10, tmp_path))


@pytest.mark.parametrize("attempts", [0, 9, True, "10", None])
def test_a_count_of_attempts_that_cannot_be_is_damage(attempts: object, tmp_path: Path) -> None:
    collect(TASK, CONFIG, 10, tmp_path)
    store = EpisodeStore(tmp_path / collection_name(TASK, CONFIG, 10))
    episodes, facts = store.read()
    store.write(episodes, {**facts, "attempts": attempts})
    assert collect(TASK, CONFIG, 10, tmp_path).attempts == 10


def test_a_whole_collection_leaves_no_batches(tmp_path: Path) -> None:
    collect(TASK, CONFIG, 30, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [collection_name(TASK, CONFIG, 30)]


def with_successes(folder: Path, episodes: int, counts: Sequence[int]) -> list[int]:
    """The batches that are missing beside first ones with so many successes."""
    for batch, count in enumerate(counts):
        collect_batch(TASK, CONFIG, episodes, folder, batch)
        store = EpisodeStore(batch_folder(folder / collection_name(TASK, CONFIG, episodes), batch))
        found, facts = store.read()
        assert facts["attempts"] == BATCH == len(found)  # this expert never fails
        store.write(found[:count], facts)
    return missing_batches(TASK, CONFIG, episodes, folder)


def test_missing_batches_by_hand(tmp_path: Path) -> None:
    assert missing_batches(TASK, CONFIG, 40, tmp_path) == [0, 1] and missing_batches(TASK, CONFIG, 45, tmp_path) == [0, 1, 2]
    collect_batch(TASK, CONFIG, 45, tmp_path, 1)
    assert missing_batches(TASK, CONFIG, 45, tmp_path) == [0, 2]
    assert with_successes(tmp_path / "few", 45, [20, 4]) == [2, 3]  # 20 + 4 + 20 are one too few


@pytest.mark.parametrize(
    ("successes", "missing"),
    [([0, 0, 0, 0], [4, 5, 6]), ([9, 0, 0, 0, 0], []), ([10, 0, 0, 0, 0], [5, 6])],
    ids=["80 attempts", "9 of 100", "10 of 100"],
)
def test_an_expert_is_given_up_after_a_hundred_attempts_of_which_less_than_a_tenth_succeed(
    successes: list[int], missing: list[int], tmp_path: Path
) -> None:
    """45 are wanted: of the batches after these, all successes, two or three are needed unless the expert is given up."""
    assert with_successes(tmp_path, 45, successes) == missing


def test_a_batch_is_made_at_the_paces(tmp_path: Path) -> None:
    slow = replace(CONFIG, paces=(0.5,))
    collect_batch(TASK, slow, 20, tmp_path, 0)
    assert all(np.abs(episode.actions).max() <= 0.5 for episode in collect(TASK, slow, 20, tmp_path).episodes)


def test_equal_digests_are_equal_data() -> None:
    one, two = collect(TASK, CONFIG, 2).episodes
    late, elsewhere = replace(one, success=np.roll(one.success, 1)), replace(one, seed=one.seed + 1)
    kinds = ([one, two], [two, one], [one], [late, two], [elsewhere, two])
    digests = [data_digest(Demonstrations(TASK, episodes, 2, len(episodes))) for episodes in kinds]
    assert len(set(digests)) == 5 and data_digest(collect(TASK, CONFIG, 2)) == digests[0]


def test_a_demonstration_ends_shortly_after_its_first_success_and_replays() -> None:
    env = make_env(TASK)
    for episode in collect(TASK, CONFIG, 10).episodes:
        assert episode.success.argmax() + 1 + CONFIG.hold_steps == len(episode.actions)
        assert episode.observations.shape == (len(episode.actions) + 1, 4)
        assert episode.observations.dtype == episode.actions.dtype == np.float32 and episode.success.dtype == bool
        replayed = [env.reset(seed=episode.seed)[0], *(env.step(action.astype(np.float64))[0] for action in episode.actions)]
        np.testing.assert_array_equal(np.float32(replayed), episode.observations)


class Hesitant:
    """Succeeds only where the goal is to the right."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        return expert_for(TASK).act(observation) * (observation[2] > 0)


def test_the_first_successes_are_kept_in_attempt_order_and_the_ceiling_counts_the_failures() -> None:
    found = collect_from(Hesitant(), TASK, CONFIG, 25)
    seeds = [episode_seed("demonstration", CONFIG.seed, TASK.name, attempt) for attempt in range(found.attempts)]
    kept = [episode.seed for episode in found.episodes]
    assert kept == [seed for seed in seeds if seed in set(kept)] and kept[-1] == seeds[-1]
    assert found.successes == 25 and 0.3 < found.ceiling < 0.7
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_an_expert_of_ones_own_acts_with_noise() -> None:
    clean, noisy = (collect_from(expert_for(TASK), TASK, replace(CONFIG, action_noise=noise), 3).episodes for noise in (0.0, 0.3))
    assert clean[0].seed == noisy[0].seed and not np.array_equal(clean[0].observations[1], noisy[0].observations[1])


def test_an_expert_that_never_succeeds_is_refused() -> None:
    class Idle:
        def act(self, observation: np.ndarray) -> np.ndarray:
            return np.zeros(2)

    with pytest.raises(UnsupportedEnvironment, match="in 0 of 100 attempts"):
        collect_from(Idle(), TASK, CONFIG, 5)


@pytest.mark.parametrize("change", [{"seed": 1}, {"hold_steps": 6}, {"action_noise": 0.1}, {"paces": (0.5,)}])
def test_other_settings_have_another_folder(change: dict[str, float]) -> None:
    assert collection_name(TASK, CONFIG, 10) != collection_name(TASK, replace(CONFIG, **change), 10)
    assert collection_name(TASK, CONFIG, 10) == collection_name(TASK, replace(CONFIG, workers=9), 10)


def test_another_horizon_and_another_simulator_have_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    name = collection_name(TASK, CONFIG, 10)
    assert collection_name(replace(TASK, horizon=31), CONFIG, 10) != name
    monkeypatch.setattr("reconverge.envs.demonstrations.simulator_version", lambda task: "point-reach 2")
    assert collection_name(TASK, CONFIG, 10) != name


def test_another_seed_has_other_starts() -> None:
    for seed in (0, 1):
        expected = [episode_seed("demonstration", seed, TASK.name, attempt) for attempt in range(3)]
        assert [episode.seed for episode in collect(TASK, replace(CONFIG, seed=seed), 3).episodes] == expected


def test_noise_moves_the_expert_and_what_is_recorded_is_what_it_wanted() -> None:
    """The stored action is the expert's own for the state that the noise has led to; it is another one than what acted there."""
    expert, noisy = expert_for(TASK), replace(CONFIG, action_noise=0.3)
    clean, found = collect(TASK, CONFIG, 5).episodes, collect(TASK, noisy, 5).episodes
    env = make_env(TASK)
    for episode in found:
        state, _ = env.reset(seed=episode.seed)
        for step, action in enumerate(episode.actions):
            np.testing.assert_array_equal(action, np.float32(expert.act(state)))
            drawn = numpy_stream("action noise", TASK.name, episode.seed).standard_normal((len(episode.actions), 2))[step]
            state = env.step(np.clip(action.astype(np.float64) + 0.3 * drawn, -1, 1))[0]
            np.testing.assert_array_equal(np.float32(state), episode.observations[step + 1])
    assert found[0].seed == clean[0].seed and not np.array_equal(found[0].observations[1], clean[0].observations[1])
    with Simulators(2) as pool:
        same(collect(TASK, noisy, 5, simulators=pool), collect(TASK, noisy, 5))


def test_without_noise_a_collection_has_the_name_that_it_had_before_there_was_any() -> None:
    assert collection_name(TASK, DemonstrationConfig(), 10) == collection_name(TASK, replace(CONFIG, action_noise=0.0), 10)
    assert collection_name(TASK, DemonstrationConfig(), 10) == "point-reach-1-10-a8fb99b30c1b"


def test_a_start_is_tried_at_one_pace_after_the_other_until_the_expert_succeeds() -> None:
    swift, slow, never = (replace(CONFIG, paces=paces) for paces in ((1.0,), (0.5,), (0.01,)))
    one, half = (collect(TASK, config, 5).episodes for config in (swift, slow))
    assert all(len(b.actions) > len(a.actions) for a, b in zip(one, half, strict=True))
    assert all(np.abs(episode.actions).max() <= 0.5 for episode in half)
    with pytest.raises(UnsupportedEnvironment, match="cannot teach"):
        collect(TASK, never, 5)
    again = collect(TASK, replace(CONFIG, paces=(0.01, 0.5, 1.0)), 5).episodes
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(half, again, strict=True))


def test_experts_that_are_not_scripted_have_one_pace() -> None:
    owned = replace(TASK, expert=ExpertSource("python", "my_experts:push", "digest"))
    assert collection_name(owned, CONFIG, 5) == collection_name(owned, replace(CONFIG, paces=(0.5,)), 5)


def test_a_stable_baselines3_policy_is_an_expert() -> None:
    class Model:
        def predict(self, observation: np.ndarray, deterministic: bool) -> tuple[np.ndarray, None]:
            assert deterministic and observation.dtype == np.float32
            return 3.0 * np.float32(expert_for(TASK).act(observation)), None

    found = collect_from(Sb3Expert(Model()), TASK, CONFIG, 5)
    assert found.successes == 5 and max(np.abs(e.actions).max() for e in found.episodes) <= 1.0


def test_episodes_of_any_length_survive_the_store(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    episodes = [
        Episode("t", seed, np.float32(random.normal(size=(n + 1, 3))), np.float32(random.normal(size=(n, 2))), np.arange(n) > 2)
        for seed, n in enumerate((4, 1, 7))
    ]
    store = EpisodeStore(tmp_path / "e")
    store.write(episodes, {"attempts": 9})
    read, facts = store.read()
    assert facts == {"attempts": 9}
    for before, after in zip(episodes, read, strict=True):
        assert (before.task, before.seed) == (after.task, after.seed)
        for name in ("observations", "actions", "success"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    store.write([], {})
    assert store.read() == ([], {})


def test_a_store_of_something_else_is_damaged(tmp_path: Path) -> None:
    from reconverge.envs.artifact import write_artifact

    write_artifact(tmp_path / "e", {"episodes.safetensors": {}, "episodes.json": {"episodes": [{"task": "t"}], "facts": {}}})
    with pytest.raises(DamagedFile, match="does not hold episodes"):
        EpisodeStore(tmp_path / "e").read()


def same(first: Demonstrations, second: Demonstrations) -> None:
    assert (first.attempts, first.successes) == (second.attempts, second.successes)
    for a, b in zip(first.episodes, second.episodes, strict=True):
        assert a.seed == b.seed
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.success, b.success)


def outcomes(*successes: int) -> Iterator[list[Episode | None]]:
    """Batches of attempts, of which those with these numbers, counted from 1, succeed."""
    (episode,) = collect(TASK, CONFIG, 1).episodes
    return ([episode if first + place in successes else None for place in range(1, BATCH + 1)] for first in itertools.count(0, BATCH))


def test_an_expert_that_hardly_ever_succeeds_is_given_up_but_not_with_all_that_is_wanted() -> None:
    nine = (*range(1, 9), 5 * BATCH)
    assert _first_successes(TASK, 9, outcomes(*nine), None)[1] == 5 * BATCH
    with pytest.raises(UnsupportedEnvironment, match=f"reached its goal in 9 of {5 * BATCH} attempts"):
        _first_successes(TASK, 10, outcomes(*nine), None)


def test_recorded_episodes_are_read_to_their_end() -> None:
    """A replay buffer may begin with failures."""
    kept, attempts = _first_successes(TASK, 2, outcomes(7 * BATCH, 8 * BATCH), None, acts=False)
    assert len(kept) == 2 and attempts == 8 * BATCH
