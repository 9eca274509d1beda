"""The page of a run: what it says, in which order, escaped, small, and the same again from the run folder."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from details import PIXEL, details
from pfpcli.records.details import Behaviour, ChangedImage, ClassCount, GroupCurve, GroupScores
from pfpcli.records.parts import GroupRow, LayerError, LayerRow, OutputQuality
from pfpcli.records.runs import AnyRun
from pfpcli.report import REPORTS
from pfpcli.report.html.page import render
from runs import failed, layers, run, sparse_run, tuned_run, unlabelled, warned

HOSTILE = "<script>alert(1)</script>\"'&{{ 7*7 }}</style>"


class Seen(HTMLParser):
    """The texts of a page, and how its elements nest."""

    VOID = ("meta", "input", "br", "img", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script") and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        """What a reader sees."""
        return " ".join(self.texts)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


@pytest.mark.parametrize(
    "made",
    [run(), unlabelled(), failed(), warned(), sparse_run(), tuned_run()],
    ids=["good", "unlabelled", "failed", "warned", "sparse", "tuned"],
)
def test_every_kind_of_run_has_a_page_whose_elements_nest(made: AnyRun) -> None:
    seen = Seen(render(made))
    assert seen.open == []
    assert seen.texts[1] in ("PASS", "FAILED")


def test_the_sections_follow_the_questions_of_a_reader() -> None:
    assert headings(render(run())) == [
        "Before and after",
        "Where it went",
        "Widths of the layers",
        "Why these channels",
        "What was not pruned, and why",
        "How to make it again",
    ]
    assert headings(render(run(), details()))[3:5] == ["Why these channels", "What it does otherwise"]
    assert headings(render(sparse_run())) == ["Before and after", "Where it went", "How to make it again"]
    assert headings(render(warned()))[-2:] == ["Warnings", "How to make it again"]
    assert headings(render(tuned_run())) == ["Before and after", "How to make it again"]


def test_the_verdict_has_chips_with_figures_and_tolerances() -> None:
    text = Seen(render(run())).text
    assert "PASS model.pt: 54.6 % of the parameters (asked 54.6 %), all checks hold" in text
    assert "budget met asked 54.6 % of the parameters, kept 54.6 %" in text
    assert "cut ≡ masked difference 3.1e-15, at most 1e-9" in text
    assert "quality accuracy 91.2 % → 89.8 %, on 256 held-out images" in text


def test_a_check_that_failed_is_a_bad_chip() -> None:
    assert '<li class="bad"><b>onnx ≠ torch</b> difference 3.1e-2, at most 1e-4</li>' in render(failed())


def test_a_gate_says_what_it_allowed() -> None:
    made = run(settings=run().settings | {"max_drop": 0.02})
    assert "gate accuracy 0.912 → 0.898, --max-drop 0.02" in Seen(render(made)).text


def test_every_layer_is_in_the_table_with_its_remark() -> None:
    page = render(run())
    assert all(f"<td>{layer.name}</td>" in page for layer in layers())
    assert "width 10 leaves the blocked layout; 8 or 12 would not" in page
    assert '<tr class="unchanged"><td>conv1</td>' in page


def test_a_run_says_how_to_make_it_again() -> None:
    settings = run().settings | {"model": "my model.pt", "freeze": ["a*", "b"], "recover": [], "cache": False}
    given = ("model", "calib", "keep", "freeze", "recover", "out")
    origins = dict.fromkeys(given, "command line") | {"cache": "pfp.toml"}
    page = render(run(settings=settings, origins=origins))
    wanted = "pfp compress 'my model.pt' --calib imgs --freeze 'a*' --freeze b --recover none --no-cache"
    text = Seen(page).text
    assert all(word in text for word in wanted.split(" --")[1:])
    assert "pfp compress 'my model.pt' --calib imgs" in text
    assert "--out" not in text
    assert "<td>keep</td><td>0.546</td><td>command line</td>" in page
    assert "<td>cache</td><td>no</td><td>pfp.toml</td>" in page
    assert "<td>seed</td><td>0</td><td>default</td>" in page


def test_a_fine_tuning_names_its_run_and_leaves_out_what_it_took_from_it() -> None:
    settings = {"run": "model-keep0.40", "calib": "train", "lr": 0.01, "preprocess": "unit", "augment": False}
    origins = dict.fromkeys(settings, "command line") | {"preprocess": "model-keep0.40"}
    text = Seen(render(tuned_run(settings=settings, origins=origins))).text
    assert "pfp finetune model-keep0.40 --data train --lr 0.01 --no-augment" in text


def test_a_run_of_a_python_call_has_no_command() -> None:
    assert "pfp compress" not in Seen(render(run(origins={}))).text


@pytest.mark.parametrize("place", ["model", "layer", "group", "warning", "folder", "setting"])
def test_a_name_is_text_wherever_it_stands(place: str) -> None:
    made = run()
    made = {
        "model": replace(made, model=made.model | {"name": HOSTILE}),
        "layer": replace(made, layers=[LayerRow(HOSTILE, HOSTILE, (9, 9), (9, 9), (1, 1), (1, 1))]),
        "group": replace(made, groups=[GroupRow(HOSTILE, 3, 3, HOSTILE, "", ())]),
        "warning": replace(made, warnings=[HOSTILE]),
        "folder": replace(made, calibration=made.calibration | {"folder": HOSTILE}),
        "setting": replace(made, settings=made.settings | {"freeze": [HOSTILE]}, origins={"freeze": HOSTILE}),
    }[place]
    seen, plain = Seen(render(made)), Seen(render(run(origins={"model": "command line"})))
    assert " ".join(HOSTILE.split()) in seen.text
    assert {name for name, _ in seen.tags} <= {name for name, _ in plain.tags}
    assert sum(name == "script" for name, _ in seen.tags) == 1


def test_characters_that_turn_or_hide_text_are_replaced() -> None:
    page = render(run(model=run().model | {"name": "a\udcff\u202eb\x1b.pt"}))
    assert "a??b?.pt" in Seen(page).text
    page.encode("utf-8")


def test_the_page_asks_for_nothing_outside_of_itself() -> None:
    page = render(run())
    assert "default-src 'none'" in page
    assert re.findall(r"(?:src|href)=|url\((?!#)|@import|https?:", page) == []


def test_a_group_shows_its_scores_with_the_cut_and_its_curve_with_the_chosen_width() -> None:
    page = render(run(), details())
    text = Seen(page).text
    assert "layer1.0.conv1 16 → 10 channels" in text
    assert "channels kept: loss — 14: 0.001, 8: 0.02, 2: 0.5" in text
    assert page.count('class="cut" d="M125 0V44"') == 4  # 10 of 16 and 20 of 32, on two drawings each
    assert page.count('class="curve"') == 6


def test_the_curve_is_that_of_the_loss_that_the_plan_minimised() -> None:
    made = run(scoring=run().scoring | {"plans": [{"name": "error", "loss": 0.1}]})
    text = Seen(render(made, details())).text
    assert "error of the refitted layers" in text
    assert "channels kept: loss — 14: 0.01, 8: 0.1, 2: 0.9" in text


def test_scores_that_were_not_dropped_from_the_lowest_on_have_no_cut_line() -> None:
    drawn = [GroupScores("layer1.0.conv1", [0.1, 0.5, 0.3, 0.2], [1, 2])]
    page = render(run(), details(groups=drawn, curves=[]))
    assert 'class="cut"' not in page


def test_many_groups_are_folded() -> None:
    many = [GroupScores(f"g{i}", [0.1, 0.5], [0]) for i in range(30)]
    assert "6 more groups" in Seen(render(run(), details(groups=many, curves=[]))).text


def test_the_classes_that_lost_most_and_the_images_that_changed_are_shown() -> None:
    page = render(run(), details())
    text = Seen(page).text
    assert "cat 100 90.0 % 70.0 % −20.0 pp" in text
    assert "12 of 256 images are put into another class than before" in text
    assert "cat (80 %) → dog (60 %) label: cat 0.7 · cat/1.png" in text
    assert page.count(PIXEL) == 5


def test_only_pictures_inside_of_the_page_are_shown() -> None:
    for uri in ("https://example.org/x.png", "data:text/html;base64,AAAA", "javascript:alert(1)"):
        changed = ChangedImage("", uri, "a", "b", "", 1, [uri, uri, uri])
        behaviour = Behaviour("y", "m", "", False, None, 3, [], [changed])
        assert uri not in render(run(), details(behaviour=behaviour))


def test_names_in_the_details_are_text() -> None:
    changed = ChangedImage(HOSTILE, PIXEL, HOSTILE, HOSTILE, HOSTILE, 1)
    behaviour = Behaviour(HOSTILE, HOSTILE, "images", False, 1, 3, [ClassCount(HOSTILE, 1, 1, 0)], [changed])
    made = details(groups=[GroupScores(HOSTILE, [1.0, 0.5], [1])], behaviour=behaviour)
    seen, plain = Seen(render(run(), made)), Seen(render(run(), details()))
    assert " ".join(HOSTILE.split()) in seen.text
    assert {name for name, _ in seen.tags} <= {name for name, _ in plain.tags}


def test_the_page_of_300_layers_and_1000_classes_stays_below_a_megabyte() -> None:
    """Pictures are taken from noise, which no JPEG makes small."""
    noise = "data:image/jpeg;base64," + 8_000 * "A"
    widths = [8 + 3 * i for i in range(301)]
    names = [f"backbone.stage{i // 50}.block{i}.conv" for i in range(300)]
    sizes = [((widths[i], widths[i] // 2 + 1), (widths[i + 1], widths[i + 1] // 2 + 1)) for i in range(300)]
    rows = [
        LayerRow(name, "conv2d", reads, makes, (2_359_296, 815_000), (462_422_016, 15_974))
        for name, (reads, makes) in zip(names, sizes, strict=True)
    ]
    errors = [
        LayerError(name, *reads, 12.3, 4201, 1.83, 2.91, 0.352) for name, (reads, _) in zip(names, sizes, strict=True)
    ]
    scores = [
        GroupScores(name, [((i * 7919) % 997) / 997 for i in range(size)], [*range(kept, size)])
        for name, (_, (size, kept)) in zip(names, sizes, strict=True)
    ]
    curves = [
        GroupCurve(
            name, size, [size * part // 8 for part in range(7, 0, -1)], {"distance": [2.0**-i for i in range(7)]}
        )
        for name, (_, (size, _)) in zip(names, sizes, strict=True)
    ]
    classes = [ClassCount(f"a class with a long name {i}", 50, 40, 40 - i % 40) for i in range(1000)]
    changed = [ChangedImage(f"n0{i}/{i}.JPEG", noise, "a", "b", "a", 1, [noise] * 3) for i in range(10)]
    made = run(
        layers=rows,
        groups=[GroupRow(name, *makes, "", "", (name,)) for name, (_, makes) in zip(names, sizes, strict=True)],
        certificate=replace(run().certificate, layers=errors),
    )
    page = render(
        made,
        details(groups=scores, curves=curves, behaviour=Behaviour("y", "m", "images", True, 9, 99, classes, changed)),
    )
    assert len(page.encode()) < 1_000_000
    assert page.count('class="hover"') == 300
    assert "900 more classes lost no larger share" in page


def test_every_output_has_its_quality() -> None:
    outputs = [OutputQuality("boxes", "boxes", None, "four numbers", "boxes", "found again", 1.0, 0.8, {"boxes": 20})]
    page = render(run(quality=replace(run().quality, outputs=outputs)))
    assert "boxes 100.0 % 80.0 % −20.0 pp found again boxes: four numbers boxes 20" in Seen(page).text


def test_making_a_page_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(run().json(), encoding="utf-8")
    code = (
        "import sys, pathlib; from pfpcli import report; from pfpcli.records.reading import read;"
        "print(report.REPORTS['html'](read(pathlib.Path(sys.argv[1])))[:15], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "<!doctype html> False\n"


def test_the_page_is_in_the_table_of_reports() -> None:
    assert REPORTS["html"](run()) == render(run())
