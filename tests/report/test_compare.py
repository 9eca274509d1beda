"""`pfp compare`: the page, Markdown and CSV, and the limits that fail a CI job."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pfpcli
from pfpcli.cli import main as cli
from pfpcli.records.compared_runs import RunsCompared, compare
from pfpcli.records.parts import Quality, UserMetric
from pfpcli.records.precision import Precision
from pfpcli.records.runs import Run
from pfpcli.records.sources import Source
from pfpcli.report.compared_runs import as_csv, markdown, render
from runs import failed, run, sparse_run, tuned_run

PAGE = """\
     run       accuracy     drop  parameters    MACs      file  latency  front
  1  keep0.55    89.8 %   1.4 pp     106.2 k  24.1 M  645.1 kB  1.32 ms  all
  2  keep0.30    80.0 %  11.2 pp      80.0 k  24.1 M  645.1 kB  1.32 ms  params
     original    91.2 %        –     194.6 k  40.8 M   1.09 MB  2.10 ms

  front: no other run has as much accuracy for as little params, macs, size, latency

  settings    keep  0.546 (1), 0.3 (2)

  results     status  ok (1), worse (2)
"""


def smaller() -> Run:
    found = run(status="worse", settings=run().settings | {"keep": 0.3})
    return replace(found, quality=replace(found.quality, after=0.8), after=replace(found.after, params=80_000))


def two() -> RunsCompared:
    return compare([(Path("keep0.55"), run()), (Path("keep0.30"), smaller())])


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the run folders good, worse and sparse, and a folder that is no run."""
    for name, made in (("good", run()), ("worse", smaller()), ("sparse", sparse_run())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(made.json(), encoding="utf-8")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_and_markdown_say_what_came_from_what() -> None:
    late = "2026-03-01T00:00:00"
    points = [run(sources=[Source("swept", "model-sweep")]) for _ in range(2)]
    again = run(created=late, sources=[Source("pruned", "a")])
    tuned = tuned_run(run="gone", created=late)
    found = compare([(Path(name), each) for name, each in zip("abcd", [*points, again, tuned], strict=True)])
    assert render(found).endswith(
        """
  made from   1 2 are points of the sweep model-sweep
              3 was pruned from the run 1 a
              4 was trained from the run gone
"""
    )
    assert "3 was pruned from the run 1 a  \n" in markdown(found)
    assert "made from" not in render(two())


LOWER = [
    Precision("float32", "model.onnx"),
    Precision(
        "int8", "model-int8.onnx", "", 200_000, 0.5, 0.0, Quality("accuracy", 0.912, 0.88, 0.9, 256, "images", 0.2)
    ),
    Precision("fp16", None, "it cannot be converted"),
]


def test_files_of_lower_precisions_have_rows_below_their_run() -> None:
    found = compare([(Path("a"), run(precisions=LOWER)), (Path("b"), smaller())])
    rows = [line.split() for line in render(found, width=100).splitlines()[:5]]
    assert [row[:2] for row in rows] == [
        ["run", "accuracy"],
        ["1", "a"],
        ["a", "int8"],
        ["2", "b"],
        ["original", "91.2"],
    ]
    assert rows[2] == ["a", "int8", "88.0", "%", "3.2", "pp", "200.0", "kB", "0.500", "ms", "size", "latency"]
    assert "| a int8 | 88.0 % | 3.2 pp |  |  | 200.0 kB | 0.500 ms | size latency |" in markdown(found)
    own = compare([(Path("a"), run(precisions=LOWER, metric=UserMetric("map", 0.5, 0.4)))])
    costs = {"params": run().after.params, "macs": run().after.macs, "size": 200_000, "latency": 0.5}
    assert own.runs[0].files[0].measures == {**costs, "accuracy": 0.88, "agreement": 0.9, "distance": 0.2}
    assert render(own).splitlines()[2].split()[:4] == ["a", "int8", "–", "–"]


def test_csv_has_a_line_for_each_file_of_a_run() -> None:
    found = compare([(Path("a"), run(precisions=LOWER)), (Path("b"), smaller())])
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(row["run"], row["precision"]) for row in rows] == [("a", "float32"), ("a", "int8"), ("b", "float32")]
    assert (rows[1]["accuracy"], rows[1]["size"], rows[1]["front"]) == ("0.88", "200000", "size latency")
    assert rows[1]["params"] == rows[0]["params"]
    assert rows[1]["quality"] == "0.88"
    assert {name for name, value in rows[1].items() if not value} == {"keep"}  # the run has it


def test_the_sentence_on_the_front_says_that_files_are_compared_as_well() -> None:
    found = compare([(Path("a"), run(precisions=LOWER)), (Path("b"), smaller())])
    assert "front: no other run or file has as much accuracy" in render(found)


def test_other_images_are_a_difference_even_if_their_folders_have_one_name() -> None:
    runs = [run(calibration={**run().calibration, "sha256": 64 * n, "judging_sha256": 64 * n}) for n in "ab"]
    found = compare([(Path("one"), runs[0]), (Path("two"), runs[1])])
    names = [each.name for each in found.differences if each.part == "conditions"]
    assert names == ["sha256 of the images", "sha256 of the judging images"]
    assert "judged on different images" in found.remarks[0]
    older = compare([(Path("one"), runs[0]), (Path("old"), run())])
    assert older.remarks == []


def test_the_page_has_a_row_for_each_run_and_what_differs() -> None:
    assert render(two(), width=100) == PAGE


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_page_fits_the_width_with_long_names(width: int) -> None:
    long = "a-very-long-name-of-a-model-that-somebody-chose-keep0.4"
    found = compare([(Path(f"{long}{i}"), run(settings=run().settings | {"keep": i / 10})) for i in range(1, 8)])
    lines = render(found, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert len([line for line in lines if "…" in line]) >= 7 or width == 120


def test_the_page_has_no_character_beyond_ascii_where_the_terminal_has_none() -> None:
    assert render(two(), unicode=False).isascii()


def test_one_run_has_no_front_and_no_differences() -> None:
    text = render(compare([(Path("one"), run())]))
    assert "front:" not in text
    assert "settings" not in text


def test_a_failed_run_says_so() -> None:
    row = render(compare([(Path("bad"), failed()), (Path("good"), run())])).splitlines()[1]
    assert row.endswith("FAILED")


def test_many_widths_are_shown_only_with_everything() -> None:
    groups = [replace(group, kept=max(1, group.kept - 3)) for group in run().groups]
    found = compare([(Path("a"), run()), (Path("b"), run(groups=groups))])
    assert "… 2 more: --all" in render(found)
    text = render(found, everything=True)
    assert "--all" not in text
    assert all(group.name in text for group in groups)


def test_runs_without_a_common_quality_show_their_own() -> None:
    other = run(quality=Quality("similarity", 1.0, 0.8, None, 256, "held-out images", 0.2))
    text = render(compare([(Path("a"), run()), (Path("b"), other)]))
    assert "accuracy 89.8 %" in text
    assert "similarity 80.0 %" in text


def test_markdown_has_tables_whose_cells_stand_for_themselves() -> None:
    found = compare([(Path("a|b_*<i>"), run()), (Path("b"), smaller())])
    lines = markdown(found).splitlines()
    assert lines[0] == "| run | accuracy | drop | parameters | MACs | file | latency | front |"
    assert lines[2].startswith(r"| a\|b\_\*\<i\> | 89.8 % |")
    cells = {line.replace(r"\|", "").count("|") for line in lines[:5]}
    assert cells == {9}
    assert "| keep | 0.546 | 0.3 |" in lines


def test_csv_has_a_line_for_each_run_with_the_measures_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(compare([(Path("a,b"), run()), (Path("s"), sparse_run())])))))
    assert [row["run"] for row in rows] == ["a,b", "s"]
    assert float(rows[0]["accuracy"]) == 0.898
    assert (rows[0]["nonzeros"], rows[1]["nonzeros"]) == ("", "44264")
    assert [row["front"] for row in rows] == ["params", "macs size"]


def test_json_is_the_document(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", "good", "worse", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["runs"]] == ["good", "worse"]
    assert found["quality"] == "accuracy"


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ((), 0, ""),
        (("--fail-under", "accuracy=80%"), 0, ""),
        (("--fail-under", "accuracy=0.81"), 1, "error: worse: accuracy 80.0 % is under 81.0 %"),
        (("--fail-under", "quality=0.80001"), 1, "error: worse: quality 0.8 is under 0.80001"),
        (("--fail-over", "drop=1%"), 1, "error: good: drop 1.4 % is over 1.0 %; worse: drop 11.2 % is over 1.0 %"),
        (("--fail-over", "latency=1"), 1, "error: good: latency 1.32 ms is over 1.00 ms; worse: latency 1.32 ms"),
        (
            ("--fail-over", "params=100000", "--fail-under", "keep=0.4"),
            1,
            "error: good: params 106.2 k is over 100.0 k",
        ),
        (("--fail-under", "acuracy=1"), 2, "--fail-under acuracy: the run has no such measure"),
        (("--fail-under", "accuracy"), 2, "error: --fail-under accuracy: expected METRIC=VALUE"),
        (("--fail-over", "drop=much"), 2, "error: --fail-over drop much: expected a number such as 0.95 or 95%"),
        (("--json", "--csv"), 2, "error: --csv --json: 2 formats"),
        (("--html", "--md"), 2, "error: --html --md: 2 formats"),
    ],
)
def test_limits_decide_the_exit_code(
    flags: tuple[str, ...], code: int, message: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["compare", "good", "worse", *flags]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    # what was measured is shown, whether it was enough or not
    assert ("run" in captured.out) == (code < 2)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("good", "--fail-over", "drop=0.02"), 0, ""),
        (("good", "--fail-over", "drop=0.01"), 1, "error: good: drop 1.4 % is over 1.0 %"),
        (("good", "--fail-under", "agreement=0.99", "--json"), 1, "error: good: agreement 95.3 % is under 99.0 %"),
        (("sparse", "--fail-over", "nonzeros=40000"), 1, "error: sparse: nonzeros 44.3 k is over 40.0 k"),
        (("sparse", "--fail-over", "latency=1"), 2, "error: --fail-over latency: the run has no such measure"),
    ],
)
def test_the_report_on_one_run_takes_limits_too(
    args: tuple[str, ...], code: int, message: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", *args]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert bool(captured.out) == (code < 2)


def test_a_folder_that_is_no_run_is_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["compare", "good", "other"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: other: no run here (no run.json)")
    assert captured.out == ""


@pytest.mark.parametrize("wrong", [{"scoring": {"plans": [{}]}}, {"after": {"params": 10**400, "macs": 1, "bytes": 1}}])
@pytest.mark.parametrize("flags", [(), ("--html",)])
def test_a_record_that_cannot_be_shown_is_named(
    wrong: dict[str, Any], flags: tuple[str, ...], folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = json.loads((folders / "worse" / "run.json").read_text(encoding="utf-8"))
    (folders / "worse" / "run.json").write_text(json.dumps(content | wrong), encoding="utf-8")
    assert cli.run(["compare", "good", "worse", *flags]) == 2
    assert "error: worse: run.json cannot be shown" in capsys.readouterr().err


def test_compare_needs_no_torch(folders: Path) -> None:
    (folders / "torch.py").write_text("raise SystemExit('torch was imported')", encoding="utf-8")
    paths = os.pathsep.join([str(folders), str(Path(pfpcli.__file__).parents[1])])
    command = [sys.executable, "-m", "pfpcli", "compare", "good", "worse"]
    done = subprocess.run(
        command, cwd=folders, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_links_to_the_pages_of_runs_below_the_current_folder(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (folders / "good" / "report.html").touch()
    (folders / "sub").mkdir()
    args = ["compare", str(folders / "good" / "run.json"), "worse", "--html"]
    assert cli.run(args) == 0
    page = capsysbinary.readouterr().out.decode("utf-8")
    assert page.startswith("<!doctype html>")
    assert set(re.findall(r'href="(.*?)"', page)) == {"./good/report.html"}  # the other run has no page
    monkeypatch.chdir(folders / "sub")
    assert cli.run(["compare", "../good", "../worse", "--html"]) == 0
    assert b"href=" not in capsysbinary.readouterr().out


def test_compare_from_python_returns_the_document(folders: Path) -> None:
    assert [each.name for each in pfpcli.compare("good", folders / "worse").runs] == ["good", "worse"]
