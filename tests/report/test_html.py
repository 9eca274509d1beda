"""The page of a run: what it says, in which order, escaped, small, and the same again from the run folder."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pfpcli.records.parts import GroupRow, LayerRow
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
        "What was not pruned, and why",
        "How to make it again",
    ]
    assert headings(render(sparse_run())) == ["Before and after", "Where it went", "How to make it again"]
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
    given = ["model", "calib", "keep", "freeze", "recover", "cache", "out"]
    page = render(run(settings=settings, given=given))
    wanted = "pfp compress 'my model.pt' --calib imgs --freeze 'a*' --freeze b --recover none --no-cache"
    text = Seen(page).text
    assert all(word in text for word in wanted.split(" --")[1:])
    assert "pfp compress 'my model.pt' --calib imgs" in text
    assert "--out" not in text
    assert "<td>keep</td><td>0.546</td><td>given</td>" in page
    assert "<td>seed</td><td>0</td><td>default</td>" in page


def test_a_fine_tuning_names_its_run_and_leaves_out_what_it_took_from_it() -> None:
    settings = {"run": "model-keep0.40", "calib": "train", "lr": 0.01, "preprocess": "unit", "augment": False}
    text = Seen(render(tuned_run(settings=settings, given=list(settings)))).text
    assert "pfp finetune model-keep0.40 --data train --lr 0.01 --no-augment" in text


def test_an_older_record_has_no_command() -> None:
    assert "pfp compress" not in Seen(render(run(given=[]))).text


@pytest.mark.parametrize("place", ["model", "layer", "group", "warning", "folder", "setting"])
def test_a_name_is_text_wherever_it_stands(place: str) -> None:
    made = run()
    made = {
        "model": replace(made, model=made.model | {"name": HOSTILE}),
        "layer": replace(made, layers=[LayerRow(HOSTILE, HOSTILE, (9, 9), (9, 9), (1, 1), (1, 1))]),
        "group": replace(made, groups=[GroupRow(HOSTILE, 3, 3, HOSTILE, "", ())]),
        "warning": replace(made, warnings=[HOSTILE]),
        "folder": replace(made, calibration=made.calibration | {"folder": HOSTILE}),
        "setting": replace(made, settings=made.settings | {"freeze": [HOSTILE]}, given=["freeze"]),
    }[place]
    seen, plain = Seen(render(made)), Seen(render(run(given=["model"])))
    assert " ".join(HOSTILE.split()) in seen.text
    assert {name for name, _ in seen.tags} <= {name for name, _ in plain.tags}
    assert sum(name == "script" for name, _ in seen.tags) == 1


def test_the_page_asks_for_nothing_outside_of_itself() -> None:
    page = render(run())
    assert "default-src 'none'" in page
    assert re.findall(r"(?:src|href)=|url\((?!#hatch)|@import|https?:", page) == []


def test_the_page_of_a_network_of_300_layers_stays_below_a_megabyte() -> None:
    name = "backbone.stage{}.block{}.conv"
    rows = [
        LayerRow(name.format(i // 50, i), "conv2d", (512, 301), (512, 301), (2_359_296, 815_000), (462_422_016, 15_974))
        for i in range(300)
    ]
    groups = [GroupRow(row.name, 512, 301, "", "", (row.name,)) for row in rows]
    page = render(run(layers=rows, groups=groups))
    assert len(page.encode()) < 1_000_000
    assert page.count('class="hover"') == 300


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
