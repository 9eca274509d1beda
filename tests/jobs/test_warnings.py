"""Warnings that a run prints."""

from __future__ import annotations

from dataclasses import replace

from pfpcli.jobs import warnings
from pfpcli.latency.files import SpeedUp
from pfpcli.records.parts import UserMetric
from pfpcli.records.robustness import Robustness
from runs import layers


def test_a_network_that_is_faster_needs_no_warning() -> None:
    assert warnings.no_faster(SpeedUp(1.5, 1.4, 1.6), layers()) == ""


def test_a_network_that_is_not_faster_names_a_layer_whose_width_is_unlucky() -> None:
    unlucky = [replace(each, op="conv2d", channels_in=(64, 61)) for each in layers()[:2]]
    text = warnings.no_faster(SpeedUp(1.0, 0.95, 1.04), unlucky)
    assert "no difference measurable" in text
    assert f"{unlucky[0].name}: width 61 leaves the blocked layout; 60 or 64 would not, and 1 more such" in text
    slower = warnings.no_faster(SpeedUp(0.8, 0.78, 0.82), [])
    assert "1.25 × the time of the original" in slower
    assert "--latency 0.6" in slower


def test_damaged_images_that_are_not_judged_by_the_metric_of_the_user_say_so() -> None:
    robust, metric = Robustness("agreement", "ImageNet-C", 64, "images", 1.0, 0.9, []), UserMetric("map", 0.5, 0.4)
    said = warnings.damaged_by_quality(metric, robust)
    assert said == "--robustness measures agreement on damaged images, not map"
    assert warnings.damaged_by_quality(None, robust) == warnings.damaged_by_quality(metric, None) == ""
