"""The page of several runs: its sections, its scatters and their links, escaped and small."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from html_pages import HOSTILE, Seen, headings
from pfpcli.records.compared_runs import RunsCompared, compare
from pfpcli.records.folders import PRECISIONS
from pfpcli.records.parts import GroupRow, Quality, UserMetric
from pfpcli.records.precision import Precision
from pfpcli.records.runs import Run
from pfpcli.records.sources import Source
from pfpcli.report.html.runs import headline, render
from pfpcli.report.html.scatter import FILE_MARKS, MARKS, scatters
from runs import run, sparse_run, tuned_run


def made(after: float, params: int = 100_000, **changes: Any) -> Run:
    """Return a run of this accuracy and size."""
    found = run(**changes)
    return replace(
        found, quality=replace(found.quality, after=after), after=replace(found.after, params=params, file_bytes=params)
    )


def compared(**records: Any) -> RunsCompared:
    return compare([(Path(f"runs/{name}"), record) for name, record in records.items()])


def three() -> RunsCompared:
    """Return a small run, one that it beats, and one that failed."""
    return compared(small=made(0.9, 50_000), large=made(0.89, 90_000), bad=made(0.5, 60_000, status="failed"))


def page(found: RunsCompared, *links: str) -> str:
    return render(found, links or [""] * len(found.runs))


def test_the_sections_follow_the_questions_of_a_reader() -> None:
    assert headings(page(three())) == ["Quality and costs", "Runs", "What differs", "What came from what"]


def test_the_headline_says_how_many_runs_of_which_model_and_which_are_on_the_front() -> None:
    assert headline(three()) == "3 runs of model.pt: 1 is on the front of a cost (small)"
    assert headline(compared(only=run())) == "1 run of model.pt"
    many = compared(**{f"r{i}": made(0.5 + i / 100, 10_000 * i) for i in range(1, 10)})
    assert headline(many) == "9 runs of model.pt: all are on the front of a cost"
    other = run(model=run().model | {"sha256": "cd" * 32, "name": "other.pt"})
    assert headline(compared(a=run(), b=other)).startswith("2 runs of model.pt, other.pt: ")


def test_failed_runs_and_warnings_stand_in_the_head() -> None:
    text = Seen(page(compared(a=run(), b=made(0.2, status="failed", latency={"threads": 9})))).text
    assert "1 failed b" in text
    assert "warning the latencies were measured under different conditions" in text


def test_each_cost_that_all_runs_have_gets_a_scatter() -> None:
    assert [each.name for each in scatters(three(), ["", "", ""])] == ["parameters", "MACs", "file", "latency"]
    found = compared(a=run(), b=sparse_run())
    assert [each.name for each in scatters(found, ["", ""])] == ["parameters", "MACs", "file"]


def test_runs_without_a_common_quality_have_no_scatter() -> None:
    other = run(quality=Quality("similarity", 1.0, 0.8, None, 256, "held-out images", 0.2))
    text = page(compared(a=run(), b=other))
    assert "Quality and costs" not in headings(text)
    assert "no measure of quality in common" in Seen(text).text


def test_a_scatter_marks_the_front_the_original_and_failed_runs() -> None:
    drawn = scatters(three(), ["", "", ""])[0]
    states = {each.title.split(":")[0]: each.state for each in drawn.points}
    assert states == {"1 small": "front", "2 large": "other", "3 bad": "failed", "original": "original"}
    assert "1 small: 90.0 %, parameters 50.0 k, on the front" in [each.title for each in drawn.points]
    assert len({each.path for each in drawn.points}) == 4  # told apart without colour


def test_points_lie_where_their_figures_say() -> None:
    points = {each.title.split(":")[0]: each for each in scatters(three(), ["", "", ""])[0].points}
    small, large, bad = (points[name] for name in ("1 small", "2 large", "3 bad"))
    assert small.x < bad.x < large.x < points["original"].x
    assert small.y < large.y < bad.y  # upwards is better
    assert (large.x - small.x) / (bad.x - small.x) == pytest.approx(4)


def lower(name: str, after: float, size: int, latency: float | None) -> Precision:
    quality = replace(run().quality, after=after)
    return Precision(name, f"model-{name}.onnx", "", size, latency, 0.0, quality)


def in_int8() -> RunsCompared:
    """Return a run with an int8 file that is as good, and one with an int8 file that is worse and has no latency."""
    first = made(0.9, 50_000, precisions=[Precision("float32", "model.onnx"), lower("int8", 0.9, 10_000, 0.5)])
    second = made(0.89, 90_000, precisions=[Precision("float32", "model.onnx"), lower("int8", 0.7, 20_000, None)])
    return compared(small=first, large=second)


def test_a_file_of_lower_precision_is_a_point_with_a_shape_of_its_own_joined_to_its_run() -> None:
    drawn = {each.name: each for each in scatters(in_int8(), ["./small/report.html", ""])}
    points = {name: {each.title.split(":")[0]: each for each in one.points} for name, one in drawn.items()}
    run_point, file = points["file"]["1 small"], points["file"]["1 small int8"]
    assert file.path not in MARKS.values()
    assert file.title == "1 small int8: 90.0 %, file 10.0 kB, on the front"
    assert file.link == "./small/report.html"
    assert f"M{run_point.x:.1f} {run_point.y:.1f}L{file.x:.1f} {file.y:.1f}" in drawn["file"].joins
    assert points["file"]["2 large int8"].state == "other"
    assert points["file"]["1 small"].state == "other"  # its own file beats it
    assert "2 large int8" not in points["latency"]  # nothing is known of it there
    assert points["MACs"]["1 small int8"].x == points["MACs"]["1 small"].x
    assert points["MACs"]["1 small int8"].state == "other"


def test_every_precision_has_a_mark_that_the_legend_shows_where_it_is_drawn() -> None:
    assert FILE_MARKS.keys() == PRECISIONS.keys()
    assert len({*FILE_MARKS.values(), *MARKS.values()}) == len(FILE_MARKS) + len(MARKS)
    text = Seen(page(in_int8())).text
    assert "int8: the file of a run in lower precision" in text
    assert "fp16" not in text
    assert "no other run or file has as much accuracy" in text
    assert "lower precision" not in Seen(page(three())).text


def test_a_run_counts_as_on_the_front_by_its_files_too() -> None:
    assert headline(in_int8()) == "2 runs of model.pt: 1 is on the front of a cost (small)"
    beaten = made(0.89, 90_000, precisions=[Precision("float32", "model.onnx"), lower("int8", 0.7, 20_000, 0.5)])
    assert headline(compared(a=made(0.9, 50_000), b=beaten)) == "2 runs of model.pt: all are on the front of a cost"


def test_the_front_is_joined_by_a_line_in_the_order_of_the_cost() -> None:
    found = compared(b=made(0.9, 90_000), a=made(0.8, 50_000), c=made(0.7, 70_000))
    drawn = scatters(found, [""] * 3)[0]
    points = {each.title.split(":")[0]: each for each in drawn.points}
    places = [f"{points[name].x:.1f} {points[name].y:.1f}" for name in ("2 a", "1 b")]
    assert drawn.front == f"M{places[0]}L{places[1]}"
    assert scatters(three(), [""] * 3)[0].front == ""  # one point alone


@pytest.mark.parametrize("number", [1, 2, 60])
def test_runs_that_are_all_alike_are_drawn_inside_of_their_frame(number: int) -> None:
    found = replace(compared(**{f"r{i}": run() for i in range(number)}), original={})
    for drawn in scatters(found, [""] * number):
        assert all(drawn.left < each.x < drawn.right and drawn.top < each.y < drawn.bottom for each in drawn.points)
        assert len(drawn.rows) == len({each.text for each in drawn.rows}) > 1


def test_a_metric_of_the_user_may_have_any_scale() -> None:
    found = compared(**{f"r{i}": made(0.9, metric=UserMetric("dB", 41.0, -i * 1e7)) for i in range(3)})
    drawn = scatters(found, [""] * 3)[0]
    assert drawn.y_axis == "dB"
    assert drawn.rows[0].text.startswith("−")


def test_a_point_and_a_name_lead_to_the_page_of_the_run_where_there_is_one() -> None:
    text = page(three(), "./small/report.html", "", "")
    assert text.count('href="./small/report.html"') == 1 + 4  # the table, and a point in each scatter
    assert text.count("href=") == 5
    assert re.search(r'<a href="./small/report.html"><g [^>]*><title>1 small: 90.0 %', text)
    assert "A point leads to the page of its run" in Seen(text).text
    assert "A point leads" not in Seen(page(three())).text


def test_the_table_is_that_of_pfp_compare_with_the_original_below() -> None:
    seen = Seen(page(three()))
    assert "small 90.0 % 1.2 pp 50.0 k 24.1 M 50.0 kB 1.32 ms all" in seen.text
    assert "bad 50.0 % 41.2 pp 60.0 k 24.1 M 60.0 kB 1.32 ms FAILED" in seen.text
    assert "original 91.2 % – 194.6 k 40.8 M 1.09 MB 2.10 ms" in seen.text


def test_one_run_alone_has_no_front() -> None:
    text = page(compared(only=run()))
    assert 'class="point front"' not in text.partition("<figure>")[2]
    assert text.count('class="point other"') == 1 + 4


def test_a_few_runs_have_a_column_each_in_what_differs() -> None:
    found = compared(a=run(), b=run(settings=run().settings | {"criterion": "l1"}))
    text = page(found)
    assert "<td>criterion</td><td>pfp</td><td>l1</td>" in text
    assert "<h3>Settings</h3>" in text
    assert "<h3>Widths</h3>" not in text


def test_of_many_runs_the_values_name_the_runs_that_have_them() -> None:
    groups = run().groups
    wider = [replace(group, kept=group.kept + 1) if group.name == "layer1.0.conv1" else group for group in groups]
    records = {
        f"r{i}": run(settings=run().settings | {"seed": i % 2}, groups=wider if i == 3 else groups) for i in range(8)
    }
    text = Seen(page(compared(**records))).text
    assert "seed 0 (1 3 5 7), 1 (2 4 6 8)" in text
    assert "group narrowest in runs widest in runs layer1.0.conv1 10 1 2 3 5 6 7 8 11 4" in text


def test_the_page_says_what_came_from_what() -> None:
    first = run(created="2026-01-01", sources=[Source("swept", "model-sweep")])
    second = run(created="2026-01-02", sources=[Source("swept", "model-sweep")])
    tuned = tuned_run(run="a", created="2026-01-03")
    planned = run(created="2026-01-04", sources=[Source("planned", "gone")])
    found = compared(a=first, b=second, c=tuned, d=planned, e=run())
    text = page(found, "./a/report.html", "", "", "", "")
    seen = Seen(text).text
    assert "1 a , 2 b are points of the sweep model-sweep." in seen
    assert "3 c was trained from the run 1 a ." in seen
    assert 'was trained from the run <a href="./a/report.html">1 a</a>' in text
    assert "4 d was cut by the plan of the run gone." in seen
    assert "The record of 1 run names nothing but the model (model.pt)." in seen


@pytest.mark.parametrize("place", ["name", "model", "metric", "setting", "value", "group", "source", "link"])
def test_a_name_is_text_wherever_it_stands(place: str) -> None:
    first, second = run(), made(0.8, settings=run().settings | {"seed": 3}, sources=[Source("planned", "c")])
    plain = Seen(page(compared(a=first, b=second), "./a/report.html", ""))
    first, second = {
        "model": [replace(each, model=each.model | {"name": HOSTILE}) for each in (first, second)],
        "metric": [replace(each, quality=replace(each.quality, metric=HOSTILE)) for each in (first, second)],
        "setting": [replace(each, settings={HOSTILE: each.settings["seed"]}) for each in (first, second)],
        "value": [first, replace(second, settings=second.settings | {"freeze": [HOSTILE]})],
        "group": [run(groups=[GroupRow(HOSTILE, 9, kept, "", "", ())]) for kept in (3, 4)],
        "source": [first, replace(second, sources=[Source("planned", HOSTILE)])],
    }.get(place, [first, second])
    name = HOSTILE.replace("/", "") if place == "name" else "a"
    link = f"./{HOSTILE}/report.html" if place == "link" else "./a/report.html"
    seen = Seen(render(compare([(Path(name), first), (Path("b"), second)]), [link, ""]))
    assert seen.open == []
    assert {tag for tag, _ in seen.tags} <= {tag for tag, _ in plain.tags}
    assert sum(tag == "script" for tag, _ in seen.tags) == 1
    shown = [seen.text, *(str(attributes.get("href")) for _, attributes in seen.tags)]
    wanted = {"name": name, "link": link}.get(place, HOSTILE)
    assert any(" ".join(wanted.split()) in text for text in shown)


def test_the_page_asks_for_nothing_outside_of_itself() -> None:
    text = page(three(), "./small/report.html", "", "")
    assert "default-src 'none'" in text
    assert re.findall(r'src=|href="(?!\./)|url\((?!#)|@import|https?:', text) == []


def test_the_page_of_60_runs_stays_small() -> None:
    def one(i: int) -> Run:
        groups = [
            GroupRow(f"backbone.stage{j // 50}.block{j}.conv", 999, (i * j) % 999, "", "", ()) for j in range(300)
        ]
        return made(0.5 + i / 200, 1000 * i + 1000, settings=run().settings | {"keep": i / 60}, groups=groups)

    found = compared(**{f"a-long-name-of-a-run-{i}": one(i) for i in range(60)})
    text = page(found, *[f"./a-long-name-of-a-run-{i}/report.html" for i in range(60)])
    assert len(text.encode()) < 500_000
    assert text.count('class="point front"') >= 60
    assert Seen(text).open == []
