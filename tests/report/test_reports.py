"""All reports: one function for every kind of run, in few lines, and without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pfpcli
from pfpcli import report
from pfpcli.records.reading import read
from pfpcli.records.runs import Record, SparseRun
from pfpcli.report import REPORTS
from runs import run, sparse_run, tuned_run

SPARSE = """\
PASS  model.pt: 30.0 % of the parameters are nonzero (asked 30.0 %)

                 before     after   change
  nonzeros      147.4 k    44.3 k  −70.0 %  parameters that are not 0
  file (onnx)  592.2 kB  592.2 kB    0.0 %
  deflated     547.2 kB  218.0 kB  −60.2 %  that file, zlib level 9
  accuracy       91.2 %    89.8 %  −1.4 pp  top-1, 256 held-out images
  agreement           –    95.3 %           top-1 same as the original's

  latency  not measured: zeros are multiplied like other numbers
  dead channels  9 that nothing reads any more; --cut-dead cuts them off

  layer  weights         nonzeros    kept   error bound  measured
  7.0     82.9 k  82.9 k → 13.9 k  16.8 %  24.7 vacuous      0.62
  3.0     36.9 k  36.9 k → 9.91 k  26.9 %  17.8 vacuous      0.56
  2.0     18.4 k  18.4 k → 11.7 k  63.5 %  3.13 vacuous      0.32
  6.0     6.14 k  6.14 k → 5.12 k  83.3 %         0.837     0.109

  run/  model.onnx  model.pt2  model.pt  plan.json  run.json
  … 2 more layers, checks, meaning of the errors, settings, times: --all
"""

TUNED = """\
PASS  model-keep0.40: accuracy 56.5 % → 93.4 %

            before  fine-tuned    change
  accuracy  56.5 %      93.4 %  +36.9 pp  top-1, 122 held-out images

  the network: 106.2 k parameters (54.6 % of model.pt), 24.1 M MACs (59.1 %)
  trained: 30 epochs of 205 images in 21.3 s, learning rate 0.02, and from
           model.pt with weight 0.5; accuracy 61.0 % → 95.1 % on 41 other
           images, which chose the weights

  run/  model.onnx  model.pt2  model.pt  plan.json  run.json
  … checks, preprocessing, settings, times: --all
"""


def drawn(form: str | None) -> SparseRun:
    scoring = {"criterion": "sipp-rand", "delta": 1e-16, "samples": 182} | ({} if form is None else {"form": form})
    return sparse_run(scoring=scoring)


@pytest.mark.parametrize(("made", "expected"), [(sparse_run(), SPARSE), (tuned_run(), TUNED)], ids=["sparse", "tuned"])
def test_a_report_shows_the_main_points(made: Record, expected: str) -> None:
    assert report.render(made, folder="run") == expected


@pytest.mark.parametrize("made", [run(), sparse_run(), tuned_run()], ids=["run", "sparse", "tuned"])
def test_everything_is_longer_and_hides_nothing(made: Record) -> None:
    short, everything = (report.render(made, folder="run", everything=each) for each in (False, True))
    assert len(short.splitlines()) <= 25
    assert "--all" not in everything
    assert everything.splitlines()[0] == short.splitlines()[0] == report.verdict(made)
    for text in ("cut ≡ masked", "onnx ≡ torch", "settings  ", "machine   ", "times     "):
        assert text not in short
        assert text in everything
    assert all(max(map(len, text.splitlines())) <= 80 for text in (short, everything))


@pytest.mark.parametrize("made", [run(), sparse_run(), tuned_run()], ids=["run", "sparse", "tuned"])
def test_a_summary_ends_with_the_verdict_and_the_folder(made: Record) -> None:
    ending = [report.verdict(made), "wrote there/run/    next: pfp report there/run, or open report.html"]
    assert report.summary(made, folder="there/run").splitlines()[-2:] == ending


def test_the_terminal_report_is_in_the_table_of_reports() -> None:
    assert REPORTS["terminal"](run(), folder="run") == report.render(run(), folder="run")


def test_all_layers_of_a_sparse_run_are_shown_with_everything() -> None:
    text = report.render(sparse_run(), everything=True)
    assert all(f"\n  {layer.name} " in text for layer in sparse_run().layers)
    assert "not known" in text
    assert "zeros in place are multiplied like other numbers, and nothing gets faster" in " ".join(text.split())


@pytest.mark.parametrize(("form", "may_fail"), [("largest", False), ("drawn", True), ("hybrid", True), (None, True)])
def test_the_bounds_of_drawn_weights_hold_with_a_probability(form: str | None, may_fail: bool) -> None:
    text = " ".join(report.render(drawn(form), everything=True).split())
    assert ("a chance of 1e-16 to fail where weights were drawn" in text) == may_fail


def test_a_sparse_run_that_failed_shows_its_checks() -> None:
    made = sparse_run(status="failed")
    made.verification.tolerance["onnx_vs_torch"] = 1e-9
    for text in (report.render(made), report.summary(made)):
        assert "FAILED  model.pt: onnx ≠ torch" in text
        assert "onnx ≡ torch  4.2e-6, more than 1e-9: FAILED" in text


def test_reading_and_rendering_a_run_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(run().json(), encoding="utf-8")
    code = (
        "import sys, pathlib, pfpcli.cli; from pfpcli import report; from pfpcli.records.reading import read;"
        "print(report.REPORTS['terminal'](read(pathlib.Path(sys.argv[1])))[:4], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": str(Path(pfpcli.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "PASS False\n"


def test_a_record_that_was_read_is_reported_like_the_one_that_was_written(tmp_path: Path) -> None:
    for made in (run(), sparse_run(), tuned_run()):
        (tmp_path / "run.json").write_text(made.json(), encoding="utf-8")
        assert report.render(read(tmp_path), everything=True) == report.render(made, everything=True)
