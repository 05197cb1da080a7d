"""The denoiser as attacks call it: whatever the passes, each state gets its own timestep, condition and answer."""

import pytest
import torch

from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.diffusion import add_noise
from ldm_privacy.randomness import normal
from ldm_privacy.testing import CountingPredictor

INDEX = torch.tensor([5, 9])
CONDITION = {"c": torch.tensor([1.0, -2.0], dtype=torch.float64)}


def query_of(predictor, rows_per_call=100, **options):
    return DenoiserQuery(predictor, INDEX, condition=CONDITION, rows_per_call=rows_per_call, **options)


@pytest.mark.parametrize("rows_per_call", range(1, 14))
def test_passes_of_any_size_answer_row_by_row(rows_per_call):
    states = normal("states", (torch.arange(2)[:, None, None], torch.arange(3)[:, None], INDEX), (2, 8, 8)).double()
    predictor, timesteps = CountingPredictor(), [7, 0, 300]
    answer = query_of(predictor, rows_per_call)(states, timesteps)
    assert predictor.num_rows == 12
    assert predictor.largest_call <= rows_per_call
    for draw in range(2):
        for place, timestep in enumerate(timesteps):
            for sample in range(2):
                row, own = states[draw, place, sample][None], {"c": CONDITION["c"][sample][None]}
                expected = CountingPredictor()(row, torch.tensor([timestep]), own)[0]
                torch.testing.assert_close(answer[draw, place, sample], expected)


def test_one_timestep_is_for_all_states():
    states = normal("states", (torch.arange(3)[:, None], INDEX), (2, 8, 8)).double()
    query = query_of(CountingPredictor())
    assert torch.equal(query(states, 40), query(states, [40, 40, 40]))
    assert torch.equal(query(states[0], 40), query(states[:1], [40])[0])


def test_states_at_a_noise_are_those_of_the_diffusion():
    latent, noise = (normal(name, (INDEX,), (2, 8, 8)).double() for name in ("latent", "noise"))
    query = query_of(CountingPredictor())
    noisy = [add_noise(latent, noise, query.alphas_cumprod, torch.full((2,), timestep)) for timestep in (40, 7)]
    answer = query.at_noise(latent, noise.expand(3, 2, *noise.shape), [40, 7])
    torch.testing.assert_close(answer, query(torch.stack(noisy), [40, 7]).expand(3, 2, *noise.shape))


def test_answers_have_the_precision_of_the_states():
    class Double(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            return super().__call__(noisy_latent.double(), timestep, condition)

    assert query_of(Double())(torch.zeros(2, 2, 8, 8), 0).dtype == torch.float32


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_the_predictor_runs_in_the_reduced_precision_that_is_asked_for_and_no_other(autocast):
    class Autocasting(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            self.seen = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            return super().__call__(noisy_latent, timestep, condition)

    predictor = Autocasting()
    assert query_of(predictor, autocast=autocast)(torch.zeros(2, 2, 8, 8), 0).dtype == torch.float32
    assert predictor.seen == autocast
    assert not torch.is_autocast_enabled("cpu")
