"""Sweep files."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.sweeps.cells import read_sweep

BETA = {"key": "autoencoder.losses.kl.weight", "values": [1e-4, 1e-3]}
CRITIC = {"plain": [], "adversarial": ["autoencoder.losses.adversarial={class: adversarial}"]}
FILE = {"config": "digits.yaml", "seeds": [0, 1], "grid": {"beta": BETA, "critic": CRITIC}}


def test_the_grid_is_the_product_of_its_axes_and_cells_come_beside_it():
    tree = {
        **FILE,
        "overrides": ["seed_all=1"],
        "cells": {"large": ["data.num_members=512"]},
        "baseline": {"beta": 1e-3, "critic": "plain"},
    }
    sweep = read_sweep(tree, "beta", overrides=["trainer.max_epochs=2"])
    assert (sweep.name, sweep.config, sweep.seeds, sweep.baseline) == ("beta", "digits.yaml", (0, 1), "beta=0.001+plain")
    assert sweep.overrides == ("seed_all=1", "trainer.max_epochs=2")
    critic = CRITIC["adversarial"][0]
    assert dict(sweep.cells) == {
        "beta=0.0001+plain": ("autoencoder.losses.kl.weight=0.0001",),
        "beta=0.0001+adversarial": ("autoencoder.losses.kl.weight=0.0001", critic),
        "beta=0.001+plain": ("autoencoder.losses.kl.weight=0.001",),
        "beta=0.001+adversarial": ("autoencoder.losses.kl.weight=0.001", critic),
        "large": ("data.num_members=512",),
    }


def test_without_a_baseline_it_is_the_first_cell():
    assert read_sweep(FILE, "beta").baseline == "beta=0.0001+plain"
    assert read_sweep({**FILE, "baseline": "beta=0.001+adversarial"}, "beta").baseline == "beta=0.001+adversarial"


def test_a_text_stays_a_text():
    sweep = read_sweep({**FILE, "grid": {"map": {"key": "denoiser.channel_map", "values": ["none", "1"]}}}, "maps")
    assert dict(sweep.cells) == {"map=none": ('denoiser.channel_map="none"',), "map=1": ('denoiser.channel_map="1"',)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gird": {}}, r"^unknown key 'gird'\. Did you mean 'grid'\? Valid keys: name, config, "),
        ({"config": None}, r"^config: missing; name the entry file"),
        ({"grid": {}}, r"^grid: empty; name an axis"),
        ({"grid": None}, r"^grid: empty; name an axis"),
        ({"grid": {"beta": {}}}, r"^grid\.beta: empty; an axis is"),
        ({"grid": {"beta": {"key": "a.b", "values": []}}}, r"^grid\.beta: empty; an axis is"),
        ({"grid": {"beta": {"key": "a.b", "values": 3}}}, r"^grid\.beta\.values: expected a list of values, got 3\.$"),
        (
            {"grid": {"beta": {"key": "a.b", "values": [1, 2, 1]}}},
            r"^grid\.beta: beta=1 stands twice; two cells would be the same",
        ),
        ({"grid": {"beta": [1, 2]}}, r"^grid\.beta: expected keys and values, got \[1, 2\]\.$"),
        ({"grid": {"beta": {"plain": "x=1"}}}, r"^grid\.beta\.plain: expected a list of overrides"),
        ({"grid": {"file": {"key": "a.b", "values": ["x/y"]}}}, r"^cell 'file=x/y' can't be a folder's name; name its values"),
        ({"cells": {"beta=0.001+plain": []}}, r"^cells\.beta=0\.001\+plain: a cell of the grid has that label"),
        ({"cells": {"x": ["seed=3"]}}, r"^cell 'x': 'seed' is given by the sweep to each trial"),
        ({"overrides": ["output_dir=x"]}, r"^overrides: 'output_dir' is given by the sweep"),
        ({"seeds": []}, r"^seeds: expected different whole numbers"),
        ({"seeds": [0, 0]}, r"^seeds: expected different whole numbers"),
        ({"seeds": [0.5]}, r"^seeds: expected different whole numbers"),
        ({"baseline": "beta=0.01+plain"}, r"^baseline: 'beta=0\.01\+plain' is no cell\. Did you mean 'beta=0\.001\+plain'\?"),
        ({"baseline": {"beta": 5, "critic": "plain"}}, r"^baseline: 'beta=5\+plain' is no cell"),
        ({"baseline": {"beta": 1e-3}}, r"^baseline: name one value of each axis \(beta, critic\), or a cell's label"),
    ],
)
def test_what_is_wrong_is_named(changed, message):
    with pytest.raises(UserError, match=message):
        read_sweep({**FILE, **changed}, "beta")
