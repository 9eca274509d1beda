"""Batch norms: running statistics that give the results of a cut network the moments of the original."""

from __future__ import annotations

import torch
from torch import nn

from pfpcli.recovery.batch_norms import Recalibrate
from refits import COUNT, dropped, grouped, recovered
from zoo import conv, head


def test_results_of_batch_norms_have_the_mean_and_spread_of_the_original() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), norm)
    groups = grouped(net, 3, 9, 9)
    kept, smaller = dropped(groups, 0, 3, 4)
    images = torch.randn(COUNT, 3, 9, 9)
    recovered(kept, smaller, images, Recalibrate)
    with torch.no_grad():
        whole, left = groups.labelled.graph.module(images), smaller.module(images)
    torch.testing.assert_close(left.mean((0, 2, 3)), whole.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left.std((0, 2, 3)), whole.std((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_batch_norms_of_an_uncut_network_keep_their_statistics() -> None:
    torch.manual_seed(0)
    groups = grouped(nn.Sequential(conv(3, 6), conv(6, 5), head(5)), 3, 8, 8)
    kept, smaller = dropped(groups)
    before = {name: tensor.clone() for name, tensor in smaller.module.state_dict().items()}
    recovered(kept, smaller, torch.randn(COUNT, 3, 8, 8), Recalibrate)
    for name, tensor in smaller.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-6)
