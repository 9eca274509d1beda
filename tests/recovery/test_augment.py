"""Augmentation: random changes of training images."""

from __future__ import annotations

import torch

from pfpcli.recovery import augment


def test_moved_images_are_pieces_of_the_image_or_its_mirror_image() -> None:
    x = torch.arange(256.0).view(1, 1, 16, 16).expand(32, 1, 16, 16)
    made = augment.moved(x, torch.Generator().manual_seed(0))
    inner = made[:, 0, 2:14, 2:14]  # what no shift by 2 can reach from outside
    steps = inner[:, :, 1:] - inner[:, :, :-1]
    assert {float(step) for step in steps.flatten()} == {1.0, -1.0}
    assert len({float(value) for value in inner[:, 0, 0]}) > 8


def test_a_third_of_the_mixed_images_is_blended_and_a_third_has_a_patch_of_another() -> None:
    x = torch.arange(300.0).view(-1, 1, 1, 1).expand(300, 3, 8, 8)
    made = augment.mixed(x, torch.Generator().manual_seed(1))
    assert ((made >= 0) & (made < 300)).all()
    whole = made.flatten(1)
    same, level = (whole == x.flatten(1)).all(1), whole.std(1) < 1e-3
    assert 70 < int(same.sum()) < 150
    assert 70 < int((level & ~same).sum()) < 130
    patched = whole[~level]
    assert 60 < len(patched) < 130
    assert all(len(image.unique()) == 2 for image in patched)


def test_altered_images_are_near_what_they_were_and_never_the_same() -> None:
    wave = torch.linspace(0, 3, 32).sin()
    x = (wave.view(1, 1, -1, 1) * wave.view(1, 1, 1, -1)).expand(16, 3, 32, 32)
    made = augment.altered(x, torch.Generator().manual_seed(0))
    assert made.shape == x.shape
    away = (made - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert (away > 0.01).all()
    assert (away < 0.6).all()
    again = augment.altered(x, torch.Generator().manual_seed(0))
    assert torch.equal(made, again)


def test_batches_that_are_no_images_do_not_change() -> None:
    x, generator = torch.randn(4, 10), torch.Generator()
    for change in (augment.moved, augment.altered, augment.mixed):
        assert torch.equal(change(x, generator), x)
