"""The report on a compression: its main points in 25 lines, everything on request, and what a command ends with."""

from __future__ import annotations

import pytest

from pfpcli.records.parts import Certificate, Cost, GroupRow, LayerError, LayerRow, Quality, Recovered, Verification
from pfpcli.records.runs import Run
from pfpcli.report.run import render, summary, verdict
from runs import failed, layers, run, unlabelled, warned

REPORT = """\
PASS  model.pt: 54.6 % of the parameters (asked 54.6 %), all checks hold

                before     after   change
  parameters   194.6 k   106.2 k  −45.4 %
  MACs          40.8 M    24.1 M  −40.9 %
  file (onnx)  1.09 MB  645.1 kB  −40.8 %
  latency      2.10 ms   1.32 ms    1.59×  median of 50, 2 threads
  accuracy      91.2 %    89.8 %  −1.4 pp  top-1, 256 held-out images
  agreement          –    95.3 %           top-1 same as the original's

  layer           op           in      out           params   saved
  layer3.1.conv1  conv2d  64 → 64  64 → 30  36.9 k → 17.3 k  22.1 %
  layer3.1.conv2  conv2d  64 → 30  64 → 64  36.9 k → 17.3 k  22.1 %
  layer3.0.conv1  conv2d  64 → 64  64 → 37  36.9 k → 21.3 k  17.6 %
  layer3.0.conv2  conv2d  64 → 37  64 → 64  36.9 k → 21.3 k  17.6 %

  not pruned: 2 groups, 13 channels: output of the model, input of the model

  pfp-runs/model-keep0.55/  model.onnx  model.pt2  model.pt  plan.json  run.json
  … 8 more layers, checks, errors of layers, settings, times: --all
"""

EVERYTHING = """\
PASS  model.pt: 54.6 % of the parameters (asked 54.6 %), all checks hold

                before     after   change
  parameters   194.6 k   106.2 k  −45.4 %
  MACs          40.8 M    24.1 M  −40.9 %
  file (onnx)  1.09 MB  645.1 kB  −40.8 %
  latency      2.10 ms   1.32 ms    1.59×  median of 50, 2 threads
                                           IQR 0.052 → 0.041 ms
  accuracy      91.2 %    89.8 %  −1.4 pp  top-1, 256 held-out images
  agreement          –    95.3 %           top-1 same as the original's

  cut ≡ masked  3.1e-15 (≤ 1e-9)
  onnx ≡ torch  4.2e-6 (≤ 1e-4)
  model.pt      written

  layer           op           in      out           params   saved
  layer3.1.conv1  conv2d  64 → 64  64 → 30  36.9 k → 17.3 k  22.1 %
  layer3.1.conv2  conv2d  64 → 30  64 → 64  36.9 k → 17.3 k  22.1 %
  layer3.0.conv1  conv2d  64 → 64  64 → 37  36.9 k → 21.3 k  17.6 %
  layer3.0.conv2  conv2d  64 → 37  64 → 64  36.9 k → 21.3 k  17.6 %
  layer2.1.conv1  conv2d  32 → 32  32 → 19  9.22 k → 5.47 k   4.2 %
  layer2.1.conv2  conv2d  32 → 19  32 → 32  9.22 k → 5.47 k   4.2 %
  layer2.0.conv1  conv2d  32 → 32  32 → 20  9.22 k → 5.76 k   3.9 %
  layer2.0.conv2  conv2d  32 → 20  32 → 32  9.22 k → 5.76 k   3.9 %
  layer1.1.conv1  conv2d  16 → 16  16 →  9  2.30 k → 1.30 k   1.1 %
  layer1.1.conv2  conv2d  16 →  9  16 → 16  2.30 k → 1.30 k   1.1 %
  layer1.0.conv1  conv2d  16 → 16  16 → 10  2.30 k → 1.44 k   1.0 %
  layer1.0.conv2  conv2d  16 → 10  16 → 16  2.30 k → 1.44 k   1.0 %
  conv1           conv2d   3 →  3  16 → 16     432 →    432   0.0 %
  linear          linear  64 → 64  10 → 10     650 →    650   0.0 %

  errors of layers, relative to the sum of the sizes of their terms
  layer              read   Σ s       m        ε  at most  measured
  layer1.0.conv2  16 → 10  9.31  4.20 k  vacuous  vacuous     0.352
  layer1.1.conv2   16 → 9  8.05  3.92 k  vacuous    0.743     0.215
  at most: on the images scored; ε: by m draws, with probability 1 − 1e-16;
  measured: on 128 held-out images
  the outputs moved by 0.21 of their L2 norm; no bound is known for that

  not pruned
    10 channels  output of the model: linear
     3 channels  input of the model: input x

  scored on 256 of 512 images in imgs, criterion pfp
  unit: /255, short side 32, centre crop 32×32
  settings  model model.pt, where everywhere, calib imgs, device auto, seed 0,
            reduce sum, delta 1e-16, cache True, criterion pfp, keep 0.546,
            keep_of params, allocate best, steps 1, recover ['lsq'],
            min_channels 1
  scoring   criterion pfp, reduce sum, epsilon 1.834, delta 1e-16, samples 256
  times     load 0.2 s, trace 0.4 s, score 6.1 s, verify 2:05 min
  memory    at most 940.0 MB (step score), 630.0 MB above the traced network
  machine   python 3.11.7, torch 2.13.0, platform Linux x86_64, device cpu
  made      2026-01-02T03:04:05.678+00:00 by pfp 0.1.0
  sha256    abababababababababababababababababababababababababababababababab
  pfp-runs/model-keep0.55/  model.onnx  model.pt2  model.pt  plan.json  run.json
"""

FAILED_SUMMARY = """\
                before     after   change
  parameters   194.6 k   106.2 k  -45.4 %
  MACs          40.8 M    24.1 M  -40.9 %
  file (onnx)  1.09 MB  645.1 kB  -40.8 %
  latency      2.10 ms   1.32 ms    1.59x  median of 50, 2 threads
  accuracy      91.2 %    89.8 %  -1.4 pp  top-1, 256 held-out images
  agreement          -    95.3 %           top-1 same as the original's

  cut = masked  3.1e-15 (<= 1e-9)
  onnx = torch  3.1e-2, more than 1e-4: FAILED
  model.pt      not written: the module cannot be rebuilt

FAILED  model.pt: onnx != torch (asked 54.6 %, kept 54.6 %)
wrote my runs/small/    next: pfp report 'my runs/small', or open report.html
"""


def test_the_report_shows_the_verdict_the_figures_the_largest_layers_and_what_was_not_pruned() -> None:
    assert render(run(), folder="pfp-runs/model-keep0.55") == REPORT


def test_everything_adds_the_checks_all_layers_their_errors_and_how_the_run_was_made() -> None:
    text = render(run(), folder="pfp-runs/model-keep0.55", everything=True)
    assert text == EVERYTHING
    assert all(layer.name in text for layer in layers())
    assert "--all" not in text


@pytest.mark.parametrize(
    "made", [run(), unlabelled(), failed(), warned(1)], ids=["good", "unlabelled", "failed", "warned"]
)
def test_the_report_has_at_most_25_lines_of_80_columns(made: Run) -> None:
    lines = render(made, folder="pfp-runs/model-keep0.55").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 25
    assert not any(line != line.rstrip() for line in lines)


def test_a_further_warning_costs_one_line() -> None:
    lines = render(warned(6), folder="pfp-runs/model-keep0.55").splitlines()
    assert len(lines) <= 25 + 5
    warnings = [line for line in lines if line.startswith("  warning: ")]
    assert len(warnings) == 6
    assert all(line.endswith(" … --all") and len(line) <= 80 for line in warnings)


def test_everything_shows_warnings_in_full() -> None:
    text = " ".join(render(warned(6), everything=True).split())
    assert all(" ".join(warning.split()) in text for warning in warned(6).warnings)


def test_the_summary_ends_with_the_verdict_and_the_next_command() -> None:
    assert summary(run(), folder="pfp-runs/model-keep0.55").splitlines()[-3:] == [
        "",
        "PASS  model.pt: 54.6 % of the parameters (asked 54.6 %), all checks hold",
        "wrote pfp-runs/model-keep0.55/    next: pfp report, or open report.html",
    ]


def test_a_failed_run_says_what_failed_by_how_much_and_names_a_folder_elsewhere_in_ascii() -> None:
    assert summary(failed(), folder="my runs/small", unicode=False) == FAILED_SUMMARY


def test_a_failed_run_is_failed_in_the_first_line_of_its_report() -> None:
    assert render(failed()).startswith("FAILED  model.pt: onnx ≠ torch (asked 54.6 %, kept 54.6 %)\n")


def test_a_run_without_a_rebuilt_module_fails_for_that_if_the_differences_hold() -> None:
    good = run().verification
    verification = Verification(good.cut_vs_masked, good.onnx_vs_torch, "other outputs", good.tolerance)
    assert verdict(run(status="failed", verification=verification)).startswith("FAILED  model.pt: no model.pt")


def test_a_worse_run_says_in_its_first_line_what_the_network_is_worth_now() -> None:
    lost = Quality("accuracy", 0.912, 0.7, 0.75, 256, "held-out images", 0.21)
    text = render(run(status="worse", quality=lost))
    assert text.splitlines()[0] == "WORSE  model.pt: accuracy 91.2 % → 70.0 % at 54.6 % of the parameters"
    missed = run(status="worse", quality=lost, achieved={"keep": 0.6, "exact": False})
    assert verdict(missed).endswith("at 60.0 % of the parameters (asked 54.6 %)")


def test_a_network_that_is_worth_nothing_failed_for_that() -> None:
    text = render(run(status="failed", failure="one class for all 256 images"))
    assert text.splitlines()[0].startswith("FAILED  model.pt: one class for all 256 images")


def test_a_budget_that_was_not_met_is_said_in_the_verdict() -> None:
    expected = "PASS  model.pt: asked 50.0 % of the parameters, closest feasible 54.6 %"
    assert verdict(unlabelled()) == expected


def test_a_budget_of_macs_is_called_so() -> None:
    assert verdict(run(requested={"keep": 0.546, "of": "macs"})).endswith("of the MACs (asked 54.6 %), all checks hold")


def test_a_long_name_does_not_push_the_verdict_over_a_line() -> None:
    for made in (run(), unlabelled(), failed()):
        made.model["name"] = "a_checkpoint_with_a_very_long_name_indeed_epoch_0123.pth"
        assert len(verdict(made)) <= 80


def test_without_labels_the_report_calls_it_agreement_once_and_says_of_how_many_images() -> None:
    text = render(unlabelled())
    assert "accuracy" not in text
    assert text.count("agreement") == 1
    assert "  agreement          –    91.8 %           top-1 same as the original's\n" in text
    assert " 256 held-out images\n" in text


def test_outputs_that_decide_nothing_are_compared_by_similarity() -> None:
    text = render(run(quality=Quality("similarity", 1.0, 0.9712, None, 12, "images of test", 0.0288)))
    assert "similarity         –    97.1 %           1 − relative L2 distance" in text
    assert "12 images of test\n" in text


def test_figures_that_were_not_measured_have_no_row() -> None:
    text = render(run(before=Cost(194_624, 40_812_544, 1), after=Cost(106_232, 24_117_248, 1)))
    assert "latency" not in text
    assert "file (onnx)" not in text


def test_recoveries_are_reported_and_the_ones_that_were_undone_called_so() -> None:
    helped = Recovered("lsq", "agreement", 0.488, 0.912, False, 205, 41)
    worse = Recovered("bn", "agreement", 0.912, 0.85, True, 205, 41)
    text = render(run(recovery=[helped, worse]))
    assert "  recovered by lsq on 205 images: agreement 48.8 % → 91.2 % on 41 others\n" in text
    assert "  bn on 205 images undone: agreement 91.2 % → 85.0 % on 41 others\n" in text
    assert "lsq on 3 images, not checked: there were no others" in render(
        run(recovery=[Recovered("lsq", "agreement", None, None, False, 3, 0)])
    )


@pytest.mark.parametrize(("undone", "after", "said"), [
    (False, 0.90, "; too few to tell, and the outputs are closer to the original's (closeness 0.50 → 0.60)"),
    (True, 0.91, "; too few to tell, and the outputs are less close to the original's (closeness 0.50 → 0.60)"),
    (False, 0.91, ""),
    (True, 0.90, ""),
])  # fmt: skip
def test_a_recovery_that_the_closeness_decided_about_says_so(undone: bool, after: float, said: str) -> None:
    recovered = Recovered("lsq", "agreement", 0.91, after, undone, 205, 41, 0.5, 0.6)
    text = " ".join(render(run(recovery=[recovered])).split())
    assert f"agreement 91.0 % → {100 * after:.1f} % on 41 others{said} layer op in" in text


def test_what_a_recovery_remarks_is_in_the_report() -> None:
    recovered = Recovered("lsq", "agreement", 0.5, 0.9, False, 205, 41, 0.5, 0.6, ["lsq counts all positions the same"])
    assert "\n  lsq counts all positions the same\n" in render(run(recovery=[recovered]))


def test_which_widths_a_small_network_keeps_is_a_line_of_the_report() -> None:
    why = "widths: as they fall; multiples of 4 lose 1.41 × as much"
    assert why in render(run(scoring=run().scoring | {"widths": why}))


def test_a_network_that_got_slower_is_called_slower() -> None:
    fast, slow = Cost(2, 2, 8, 10, 1.0, 0.1), Cost(1, 1, 4, 5, 1.25, 0.1)
    text = render(run(before=fast, after=slow, latency={"threads": None, "runs": 50, "batch": 1}))
    assert "0.80×  slower; median of 50, all cores\n" in text


def test_ascii_is_ascii_whatever_the_names_are() -> None:
    text = render(run(layers=[LayerRow("größe\x1b[31m", "conv2d", (1, 1), (9, 5), (81, 45), (1, 1))]), unicode=False)
    assert text.isascii()
    assert "gr??e?[31m" in text


def test_escape_sequences_in_names_do_not_reach_the_terminal() -> None:
    text = render(run(layers=[LayerRow("a\x1b[2Jb\nc", "conv2d", (1, 1), (9, 5), (81, 45), (1, 1))]))
    assert "\x1b" not in text
    assert "a?[2Jb" in text


def test_wide_numbers_and_long_names_keep_the_table_aligned_and_within_the_page() -> None:
    wide = [
        LayerRow(
            "backbone.stages.3.blocks.12.mixer.projection.conv",
            "conv_transpose2d",
            (1, 1),
            (12345, 678),
            (p, q),
            (1, 1),
        )
        for p, q in ((9_876_543_210, 1_234), (999_999, 5), (81, 45))
    ]
    for width in (60, 80, 100):
        lines = render(run(layers=wide, before=Cost(9_876_543_210, 40_812_544, 1)), width=width).splitlines()
        start = next(index for index, line in enumerate(lines) if line.startswith("  layer "))
        table = lines[start : start + 4]
        assert max(map(len, lines)) <= width
        assert len({len(line) for line in table}) == 1
        assert all("  " + name in table[0] for name in ("params", "saved"))
        assert all("backbone" in line and "conv" in line for line in table[1:])
    assert "conv_transpose2d" not in render(run(layers=wide, before=Cost(9_876_543_210, 40_812_544, 1)), width=60)
    assert "9.88 G" in render(run(layers=wide, before=Cost(9_876_543_210, 40_812_544, 1)), width=60)


def test_a_run_that_dropped_nothing_says_so() -> None:
    same = [LayerRow("conv", "conv2d", (3, 3), (8, 8), (216, 216), (1, 1))]
    text = render(run(layers=same, before=Cost(216, 1, 864), after=Cost(216, 1, 864)))
    assert "no layer got smaller" in text
    assert "  parameters     216     216    0.0 %\n" in text


def test_the_layers_are_those_that_saved_most_of_what_the_budget_measures() -> None:
    rows = [
        LayerRow("wide", "conv2d", (3, 3), (8, 4), (900, 100), (1000, 900)),
        LayerRow("early", "conv2d", (3, 3), (8, 4), (90, 80), (9000, 100)),
    ]
    costs = {"layers": rows, "before": Cost(990, 10_000, 1), "after": Cost(180, 1000, 1)}
    by_params, by_macs = (render(run(**costs, requested={"keep": 0.2, "of": of})) for of in ("params", "macs"))
    assert by_params.index("wide") < by_params.index("early")
    assert by_macs.index("early") < by_macs.index("wide")
    assert "  early  conv2d  3 → 3  8 → 4  9.00 k → 100  98.9 %\n" in by_macs
    everything = render(run(**costs, requested={"keep": 0.2, "of": "macs"}), everything=True)
    headings = [line.split() for line in everything.splitlines() if line.startswith("  layer ")]
    assert [heading[4] for heading in headings[:2]] == ["MACs", "params"]


def test_the_files_stand_below_a_folder_with_a_long_name() -> None:
    folder = "somewhere/below/the/home/of/a/user/pfp-runs/model-keep0.55"
    lines = render(run(), folder=folder).splitlines()
    assert lines[-3:-1] == [f"  {folder}/", "    model.onnx  model.pt2  model.pt  plan.json  run.json"]


def test_a_missing_module_is_explained() -> None:
    assert "  model.pt not written: the input is no module: pt2\n" in render(warned(0))


def test_frozen_groups_are_gathered_by_reason() -> None:
    groups = [GroupRow(f"conv{n}", 8, 8, "mixed by aten.sort", "", ()) for n in range(9)]
    groups += [GroupRow(f"odd{n}", 2, 2, f"indexed in index_{n}", "", ()) for n in range(7)]
    text = render(run(groups=groups))
    assert "  not pruned: 16 groups, 86 channels: mixed by aten.sort, indexed in … --all\n" in text
    everything = render(run(groups=groups), everything=True)
    assert "    72 channels  mixed by aten.sort: conv0, conv1, conv2, conv3, " in everything
    assert "     2 channels  indexed in index_0: odd0\n" in everything
    assert "conv8" in everything


def test_groups_whose_statistics_change_are_named_only_if_channels_were_dropped() -> None:
    groups = [GroupRow("a", 8, 5, "", "layer_norm (norm)", ()), GroupRow("b", 8, 8, "", "softmax (attn)", ())]
    text = render(run(groups=groups))
    assert "  inexact: 3 channels dropped although a statistic across channels … --all\n" in text
    assert "softmax" not in text
    everything = render(run(groups=groups), everything=True)
    assert "    3 channels  layer_norm (norm): a\n" in everything
    assert "softmax" not in everything


def test_ops_without_a_rule_and_warnings_are_listed() -> None:
    trace = {"ops": 9, "unknown": {"aten.cummax.default": 1, "aten.sort.default": 4}, "dynamic_batch": True}
    warnings = ["3 images were skipped " + "because they are broken " * 4]
    text = render(run(trace=trace, warnings=warnings), everything=True)
    assert "  ops without a rule: aten.sort.default ×4, aten.cummax.default ×1\n" in text
    assert "  warning: 3 images were skipped because" in text
    assert max(map(len, text.splitlines())) <= 80


def test_bounds_that_say_nothing_are_called_vacuous_and_what_is_not_known_is_a_dash() -> None:
    certificate = Certificate(1e-9, 64, "held-out images", [LayerError("fc", 8, 4, measured=0.5)])
    text = render(run(certificate=certificate), everything=True)
    assert "  fc     8 → 4    –  –  –        –       0.5\n" in text
    assert "no bounds: the criterion measures no sensitivities" in text
    certificate.layers[0].total, certificate.layers[0].bound, certificate.layers[0].epsilon = 3.0, 1.0, 0.25
    assert "  fc     8 → 4    3  –  0.25  vacuous       0.5\n" in render(run(certificate=certificate), everything=True)


def test_the_layers_with_the_largest_errors_come_first() -> None:
    rows = [LayerError(f"fc{i}", 8, 4, 3.0, 10, 0.5, 0.5, i / 10) for i in range(7)]
    text = render(run(certificate=Certificate(1e-9, 64, "held-out images", rows)), everything=True)
    places = [text.index(f"\n  fc{i} ") for i in range(7)]
    assert places == sorted(places, reverse=True)
