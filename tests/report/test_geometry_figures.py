"""The geometry's figures: they draw for every shape of data, and show the numbers they are given."""

import io

import numpy as np
import PIL.Image
import pytest
import torch

from ldm_privacy.metrics import auroc_by_quartile
from ldm_privacy.pictures import PALETTE
from ldm_privacy.randomness import normal
from ldm_privacy.report.figures.distortion import distortion_figure, quartile_figure
from ldm_privacy.report.figures.influence import influence_map_figure, mask_frequency_figure, pixel_influence_figure


def numbers(*shape):
    return normal("test figures", (0,), shape)


def picture(figure):
    file = io.BytesIO()
    figure.savefig(file, dpi=50)
    drawn, size = figure.get_tightbbox(), figure.get_size_inches()
    assert min(drawn.x0, drawn.y0, size[0] - drawn.x1, size[1] - drawn.y1) > -0.02, "something is cut off"
    pixels = np.asarray(PIL.Image.open(file).convert("RGB"))
    assert pixels.std() > 0
    return pixels


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def shown(axis):
    return np.ma.filled(axis.images[0].get_array().astype(float), np.nan)


@pytest.mark.parametrize(("num_samples", "num_images", "channels"), [(1, 2, 1), (2, 2, 3), (5, 4, 1), (40, 8, 3)])
def test_distortion_draws_violins_and_extremes(num_samples, num_images, channels):
    distortion = numbers(num_samples)
    figure = distortion_figure(
        distortion, torch.arange(num_samples) % 2 == 0, numbers(num_samples, channels, 8, 8).tanh().__getitem__
    )
    assert len(figure.axes) == 1 + num_images
    picture(figure)


def test_distortion_shows_the_highest_and_the_lowest_with_value_and_set():
    distortion = torch.tensor([3.0, -1.0, 0.0, 9.0, 5.0, 4.0, 2.0, 7.0, 6.0, 1.0])
    is_member = distortion > 5.5
    images = (distortion / 10)[:, None, None, None].expand(-1, 1, 2, 2)
    axes = distortion_figure(distortion, is_member, images.__getitem__).axes[1:]
    assert [axis.get_xlabel() for axis in axes] == [
        *("9.00\nmember", "7.00\nmember", "6.00\nmember", "5.00\nheld-out"),
        *("\N{MINUS SIGN}1.00\nheld-out", "0.00\nheld-out", "1.00\nheld-out", "2.00\nheld-out"),
    ]
    grey = [int(axis.images[0].get_array()[0, 0, 0]) for axis in axes]
    assert grey == [round((value / 10 + 1) * 127.5) for value in (9, 7, 6, 5, -1, 0, 1, 2)]


@pytest.mark.parametrize("is_member", [torch.ones(6, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)])
def test_distortion_of_one_set_and_of_equal_values_draws(is_member):
    picture(distortion_figure(torch.full((6,), 2.0), is_member, torch.zeros(6, 1, 4, 4).__getitem__))


def quartiles(num_timesteps, num_samples=64):
    return auroc_by_quartile(numbers(num_timesteps, num_samples), torch.arange(num_samples) % 2 == 0, numbers(num_samples))


def test_quartiles_have_a_panel_each_with_value_and_interval():
    found = quartiles(5)
    figure = quartile_figure(found, [0, 10, 20, 40, 80], title="SimA")
    assert len(figure.axes) == 4
    for place, axis in enumerate(figure.axes):
        own = [line for line in axis.lines if line.get_color() == PALETTE[place]]
        assert own[0].get_ydata().tolist() == [row[place].value for row in found.auroc]
        band = axis.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() == min(row[place].lower for row in found.auroc)
        assert band.max() == max(row[place].upper for row in found.auroc)
        assert f"{found.num_members[place]} members, {found.num_heldout[place]} held-out" in axis.get_title()
    picture(figure)


@pytest.mark.parametrize("timesteps", [[], [50]])
def test_one_number_a_quartile_is_a_dot_in_each_panel(timesteps):
    found = quartiles(1)
    figure = quartile_figure(found, timesteps, title="PFAMI")
    own = [next(line for line in axis.lines if line.get_color() == PALETTE[place]) for place, axis in enumerate(figure.axes)]
    assert [line.get_ydata().tolist() for line in own] == [[estimate.value] for estimate in found.auroc[0]]
    bars = [axis.collections[0].get_paths()[0].vertices[:, 1].tolist() for axis in figure.axes]
    assert bars == [[estimate.lower, estimate.upper] for estimate in found.auroc[0]]
    assert [axis.get_xticks().tolist() for axis in figure.axes] == [timesteps] * 4
    picture(figure)


@pytest.mark.parametrize("num_timesteps", [1, 3])
def test_quartiles_without_an_estimate_draw(num_timesteps):
    picture(quartile_figure(quartiles(num_timesteps, 6), list(range(num_timesteps)), title="a handful"))


@pytest.mark.parametrize(("num_samples", "channels"), [(1, 1), (3, 6)])
def test_influence_map_has_a_panel_a_channel_on_one_scale(num_samples, channels):
    influence = numbers(num_samples, channels, 4, 4).exp()
    figure = influence_map_figure(influence.double().mean(0), len(influence))
    axes = panels(figure)
    assert len(axes) == channels
    assert len(figure.axes) == channels + 1
    mean = influence.double().mean(0)
    for channel, axis in enumerate(axes):
        np.testing.assert_allclose(shown(axis), mean[channel].log10())
        assert axis.get_title() == f"channel {channel}: mean {float(mean[channel].mean()):.3g}"
        assert axis.images[0].get_clim() == pytest.approx((float(mean.log10().min()), float(mean.log10().max())))
    picture(figure)


@pytest.mark.parametrize("value", [0.0, 1.0, 2.5e-7])
def test_constant_influence_draws(value):
    figure = influence_map_figure(torch.full((1, 4, 4), value, dtype=torch.float64), 2)
    low, high = panels(figure)[0].images[0].get_clim()
    assert low < high
    picture(figure)


def test_positions_without_influence_are_no_colour_of_the_scale():
    influence = torch.ones(2, 1, 4, 4)
    influence[:, 0, 1, 2] = 0
    values = shown(panels(influence_map_figure(influence.double().mean(0), len(influence)))[0])
    assert np.isnan(values[1, 2])
    assert np.isnan(values).sum() == 1


@pytest.mark.parametrize("channels", [1, 4])
def test_mask_frequency_has_a_row_a_mask_and_a_column_a_channel(channels):
    masks = {"top": numbers(7, channels, 4, 4) > 0, "all": torch.ones(7, channels, 4, 4, dtype=torch.bool)}
    figure = mask_frequency_figure({label: mask.double().mean(0) for label, mask in masks.items()}, 7)
    axes = panels(figure)
    assert len(axes) == 2 * channels
    for place, axis in enumerate(axes):
        expected = list(masks.values())[place // channels].double().mean(0)[place % channels]
        np.testing.assert_allclose(shown(axis), expected)
        assert axis.images[0].get_clim() == (0, 1)
    assert [axis.get_ylabel() for axis in axes[::channels]] == ["top", "all"]
    assert axes[-1].get_title() == "100% kept"
    picture(figure)


@pytest.mark.parametrize(("num_samples", "channels"), [(1, 1), (6, 3)])
def test_pixel_influence_stands_under_its_image(channels, num_samples):
    images, influence = numbers(num_samples, channels, 8, 8).tanh(), numbers(num_samples, 8, 8).exp()
    figure = pixel_influence_figure(images, influence)
    axes = panels(figure)
    assert len(axes) == 2 * num_samples
    for sample in range(num_samples):
        expected = ((images[sample] + 1) * 127.5).round().permute(1, 2, 0).expand(-1, -1, 3)
        np.testing.assert_array_equal(axes[sample].images[0].get_array(), expected)
        np.testing.assert_allclose(shown(axes[num_samples + sample]), influence[sample].double().log10())
    picture(figure)


def test_constant_pixel_influence_draws():
    picture(pixel_influence_figure(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4)))
