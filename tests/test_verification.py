"""`verify`: a good run passes, and every kind of damage is found and named; the folder is never written in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from csv_rows import rows_of
from edited_run import keep_lines
from run_files import TABLES
from small_run import run, toy_config
from source_files import ROOT

from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.launch import verification
from reconverge.launch.checkpoint import read_record
from reconverge.launch.cli import main
from reconverge.launch.presets import find_preset
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.run_tables import CURVE_COLUMNS, RECOVERY_COLUMNS, csv_text, recoveries, table_texts
from reconverge.launch.seal import SEAL
from reconverge.launch.table_differences import table_differences
from reconverge.launch.verification import verify
from reconverge.launch.verified_run import Check, VerifiedRun

RESULTS = ROOT / "results" / "cw10-one-pace" / "replay" / "seed-0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of two short stages, sealed."""
    world, base = tmp_path_factory.mktemp("world"), find_preset("smoke")
    config = toy_config(
        world,
        method="trust-region",
        curriculum="point-reach:2",
        train=replace(base.train, updates=20, log_every=5),
        replay=replace(base.replay, windows_per_task=32, generator=replace(base.replay.generator, updates=3)),
        demonstrations=replace(toy_config(world).demonstrations, episodes=5),
        evaluation=EvaluationConfig(episodes=4, workers=0),
        recovery=RecoveryConfig(episodes=3, grid=(2, 10)),
    )
    path = run(world / "run", config)
    (path / "command.txt").write_text("reconverge train\n")
    from reconverge.launch.seal import seal

    seal(path)
    return path


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def unsealed(copied: Path) -> Path:
    (copied / SEAL).unlink()
    return copied


def wrong(path: Path) -> list[Check]:
    return [check for check in verify(path) if check.outcome == "DIFFERS"]


def said(path: Path) -> str:
    return "\n".join(map(str, wrong(path)))


def first_said(path: Path) -> str:
    """The first finding alone, without the checks that come after it."""
    return next((str(check) for check in verify(path) if check.outcome == "DIFFERS"), "nothing")


def change_a_digit(path: Path) -> None:
    """In the last line: the last digit of the first number that is not the stage."""
    lines = path.read_text().splitlines()
    place = max(index for index, letter in enumerate(lines[-1]) if letter.isdigit())
    digit = "1" if lines[-1][place] == "0" else "0"
    lines[-1] = lines[-1][:place] + digit + lines[-1][place + 1 :]
    path.write_text("\n".join(lines) + "\n")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_good_run_passes_and_is_not_written_in(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(copied)
    assert main(["verify", str(copied)]) == 0
    shown = capsys.readouterr().out
    assert "DIFFERS" not in shown and " 0 differ, 0 could not be made" in shown
    assert all(f" {table}" in shown for table in TABLES)
    assert contents(copied) == before


def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(copied: Path) -> None:
    for name, (data, _) in contents(copied).items():
        path = copied / name
        place = len(data) // 2
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        named = name if not name.startswith("checkpoints/") else Path(name).parent.name
        assert named in first_said(copied), name
        path.write_bytes(data)
    assert not wrong(copied)


def test_a_missing_file_is_found_and_named(copied: Path) -> None:
    for name, (data, _) in contents(copied).items():
        if name != SEAL:
            (copied / name).unlink()
            assert Path(name).name in first_said(copied), name
            (copied / name).write_bytes(data)


@pytest.mark.parametrize("table", TABLES)
def test_a_changed_digit_is_found_without_a_seal(table: str, unsealed: Path) -> None:
    change_a_digit(unsealed / table)
    (first, *_) = [check for check in wrong(unsealed) if check.subject == table]
    assert "found" in first.detail and "expected" in first.detail and "row" in first.detail


@pytest.mark.parametrize("table", TABLES)
def test_a_row_too_many_or_too_few_is_found_without_a_seal(table: str, unsealed: Path) -> None:
    text = (unsealed / table).read_text()
    last = text.splitlines()[-1]
    (unsealed / table).write_text(f"{text}{last}\n")
    assert "one too many" in said(unsealed) and table in said(unsealed)
    (unsealed / table).write_text(text.removesuffix(f"{last}\n"))
    assert "is missing" in said(unsealed) and table in said(unsealed)


def test_tables_that_a_killed_run_had_not_written_anew_are_no_damage(unsealed: Path) -> None:
    folder = RunFolder(unsealed)
    records = [read_record(folder.checkpoint(stage))[0] for stage in (0, 1, 2)]
    settings = folder.config.recovery
    before = table_texts(records[:-1], [], settings.episodes, settings.thresholds)
    for name in reversed(before):  # the last one alone, the last two, ...
        (unsealed / name).write_text(before[name])
        assert not wrong(unsealed)
        assert "killed while they were written" in "\n".join(str(check) for check in verify(unsealed))
    (unsealed / "ledger.csv").write_text(table_texts(records, [], settings.episodes, settings.thresholds)["ledger.csv"])
    assert "ledger.csv" in said(unsealed) or "episodes.csv" in said(unsealed)  # never in the middle


def test_a_run_without_its_tables_or_with_other_losses_is_no_killed_one(unsealed: Path) -> None:
    metrics = (unsealed / "metrics.jsonl").read_text()
    matrix = (unsealed / "success_matrix.csv").read_text()
    (unsealed / "success_matrix.csv").write_text("".join(line for line in matrix.splitlines(True) if not line.startswith("2,")))
    (unsealed / "metrics.jsonl").write_text(metrics.replace('"update": 20, "loss": ', '"update": 20, "loss": 1'))
    assert "metrics.jsonl" in said(unsealed)
    for name in TABLES:
        if name != "ceilings.csv":
            (unsealed / name).unlink()
    assert "it is missing" in said(unsealed)


def test_without_checkpoints_the_episodes_still_give_the_tables(unsealed: Path) -> None:
    shutil.rmtree(unsealed / "checkpoints")
    assert not wrong(unsealed)
    for table in ("success_matrix.csv", "recovery_curves.csv", "recovery.csv"):
        text = (unsealed / table).read_text()
        change_a_digit(unsealed / table)
        assert table in said(unsealed)
        (unsealed / table).write_text(text)


def test_a_stage_of_which_every_task_failed_is_not_lacking(unsealed: Path) -> None:
    shutil.rmtree(unsealed / "checkpoints")
    rows = (unsealed / "success_matrix.csv").read_text().splitlines(True)
    (unsealed / "success_matrix.csv").write_text("".join(row for row in rows if not row.startswith("1,")))
    assert "success_matrix.csv lacks stage 1" in said(unsealed)
    with (unsealed / "failures.csv").open("a") as file:
        file.write("1,matrix,20,point-reach-0,7,3,it fell over\n1,matrix,20,point-reach-1,7,3,it fell over\n")
    assert "lacks stage 1" not in said(unsealed)


def test_a_task_that_is_named_beside_a_failure_has_not_failed(unsealed: Path) -> None:
    shutil.rmtree(unsealed / "checkpoints")
    lines = (unsealed / "episodes.csv").read_text().splitlines(True)
    last = [line for line in lines if line.startswith("matrix,2") and ",point-reach-1," in line][-1]
    keep_lines(unsealed / "episodes.csv", lambda line: line != last)
    with (unsealed / "failures.csv").open("a") as file:
        file.write("1,matrix,20,point-reach-0,7,3,beside point-reach-1\n")
    assert "matrix of point-reach-1, stage 2" in said(unsealed)


def test_another_seed_a_double_episode_and_a_rate_above_one_are_named(unsealed: Path) -> None:
    shutil.rmtree(unsealed / "checkpoints")
    lines = (unsealed / "episodes.csv").read_text().splitlines()
    cells = lines[1].split(",")
    (unsealed / "episodes.csv").write_text("\n".join([lines[0], ",".join([*cells[:4], "77", *cells[5:]]), *lines[2:]]) + "\n")
    assert "has seed 77, expected" in said(unsealed)
    (unsealed / "episodes.csv").write_text("\n".join([*lines, lines[-1]]) + "\n")
    assert "2 rows for" in said(unsealed) and "episodes, expected 4" in said(unsealed)
    (unsealed / "episodes.csv").write_text("\n".join(lines) + "\n")
    matrix = (unsealed / "success_matrix.csv").read_text().splitlines()
    cells = matrix[-1].split(",")
    (unsealed / "success_matrix.csv").write_text("\n".join([*matrix[:-1], ",".join([*cells[:4], "1.5", *cells[5:]])]) + "\n")
    assert "column rate: '1.5'; a rate lies within [0, 1]" in said(unsealed)


def test_a_table_that_nobody_listed_and_a_checkpoint_too_few_are_named(copied: Path) -> None:
    (copied / "better.csv").write_text("a\n1\n")
    (copied / "notes.txt").write_text("mine")
    assert "better.csv came later" in said(copied) and "notes.txt" not in said(copied)
    (copied / "better.csv").unlink()
    shutil.rmtree(copied / "checkpoints" / "stage-02")
    assert "the tables end with stage 2, the checkpoints with stage 1" in said(copied)


def test_lines_of_a_stage_that_is_being_learned_are_no_damage(unsealed: Path) -> None:
    shutil.rmtree(unsealed / "checkpoints" / "stage-02")
    shown = {check.subject: check for check in verify(unsealed) if check.outcome == "ok"}
    assert "belong to a stage that is not finished" in shown["metrics.jsonl"].detail


def test_what_changed_while_a_live_run_was_read_is_read_again(unsealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[VerifiedRun] = []

    def at_first_different(run: VerifiedRun) -> Iterator[Check]:
        asked.append(run)
        yield Check("recovery.csv", "DIFFERS" if len(asked) == 1 else "ok", "")

    monkeypatch.setattr(verification, "CHECKS", {"records": at_first_different})
    with RunFolder.resume(unsealed):
        assert [check.outcome for check in verify(unsealed)] == ["ok"] and asked[0] is not asked[1]
    asked.clear()
    assert [check.outcome for check in verify(unsealed)] == ["DIFFERS"]


def test_findings_ahead_of_an_error_stay(unsealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(run: VerifiedRun) -> Iterator[Check]:
        yield Check("stage-01", "DIFFERS", "a byte")
        raise PermissionError("stage-02")

    monkeypatch.setattr(verification, "CHECKS", {"checkpoints": breaks})
    assert [check.detail for check in verify(unsealed)] == ["a byte", "stage-02"]


def test_other_demonstrations_are_named(copied: Path, made: Path) -> None:
    (store, *_) = sorted((made.parent / "demonstrations").glob("point-reach-0-*"))
    path = store / "episodes.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        assert f"{store.name}/episodes.safetensors does not match its hash" in said(copied)
    finally:
        path.write_bytes(data)


def test_published_tables_are_checked_as_far_as_they_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(RESULTS)]) == 0
    shown = capsys.readouterr().out
    assert "neither weights nor" in shown and "single episodes and their seeds cannot be checked" in shown
    copied = Path(shutil.copytree(RESULTS, tmp_path / "run"))
    for table in ("success_matrix.csv", "recovery.csv", "recovery_curves.csv", "ceilings.csv"):
        text = (copied / table).read_text()
        change_a_digit(copied / table)
        assert table in said(copied), table
        (copied / table).write_text(text)


def test_published_recovery_that_the_matrix_belies_is_found(tmp_path: Path) -> None:
    """Tables that agree with themselves: references that vanish in a later stage, curves that end better than the stage did."""

    def written_anew(path: Path, curves: list[list[str]], references: dict[tuple[str, str], float]) -> None:
        counts = ("stage", "update", "episodes", "successes")
        rows = [dict(zip(CURVE_COLUMNS, row, strict=True)) for row in curves]
        numbers = [{**row, **{name: int(row[name]) for name in counts}, "reference_rate": references[row["stage"], row["task"]]} for row in rows]
        (path / "recovery_curves.csv").write_text(csv_text(CURVE_COLUMNS, rows))
        (path / "recovery.csv").write_text(csv_text(RECOVERY_COLUMNS, recoveries(numbers, {}, (99, 90, 80))))

    path = Path(shutil.copytree(RESULTS, tmp_path / "run"))
    (path / SEAL).unlink(missing_ok=True)
    curves = [line.split(",") for line in (path / "recovery_curves.csv").read_text().splitlines()[1:]]
    references = {(row["stage"], row["task"]): float(row["reference_rate"]) for row in rows_of(path / "recovery.csv")}
    written_anew(path, curves, references)
    assert not wrong(path)

    written_anew(path, curves, {**references, ("10", "hammer-v3"): 0.0})
    assert "reference_rate: found 0.0" in said(path)

    fallen = [[*row[:5], "0"] if row[1:3] == ["10", "window-close-v3"] and row[3] != "0" else row for row in curves]
    written_anew(path, fallen, references)
    assert "recovery_curves.csv" in said(path) and "0 of 20 cannot be among" in said(path)

    torn = [[*row[:5], str(max(0, int(row[5]) - 1))] if row[1:4] == ["2", "hammer-v3", "2000"] else row for row in curves]
    written_anew(path, torn, references)
    assert "the stage before ended with" in said(path)


def test_what_cannot_be_understood_is_a_finding(unsealed: Path) -> None:
    shutil.rmtree(unsealed / "checkpoints")
    for path in (path for path in unsealed.iterdir() if path.is_file() and path.suffix in (".csv", ".json", ".yaml", ".jsonl")):
        data = path.read_bytes()
        for hostile in (b"\xff\x00\n", b"stage,task\n1\n"):
            path.write_bytes(hostile)
            list(verify(unsealed))  # raises nothing
        path.write_bytes(data)


def test_differences_of_two_tables() -> None:
    text = "stage,rate\n1,0.5\n2,0.8\n3,0.9\n"
    assert table_differences(text.replace("0.8", "0.84"), text) == ["row 2, column rate: found 0.84, expected 0.8"]
    assert table_differences(text.replace("2,0.8\n", ""), text) == ["row 2 is missing: 2,0.8"]
    assert table_differences(text + "3,0.9\n", text) == ["row 4 is one too many: 3,0.9"]
    assert table_differences(text.replace("rate", "rat"), text) == ["its columns are stage,rat, expected stage,rate"]
    assert table_differences(text[:-1], text) == ["the same values in other bytes"]
    assert table_differences('{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 3}\n', with_header=False) == ["row 2, a: found 2, expected 3"]
