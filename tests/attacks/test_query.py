"""The denoiser as attacks call it: whatever the passes, each state gets its own timestep, condition and answer."""

import weakref

import pytest
import torch

from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.diffusion import add_noise
from ldm_privacy.errors import UserError
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


def jacobian_of(state, timestep, condition):
    """d epsilon / d state of one row, dense."""
    predictor = CountingPredictor()

    def epsilon(flat):
        return predictor(flat.reshape(1, *state.shape), torch.tensor([timestep]), condition).flatten()

    return torch.autograd.functional.jacobian(epsilon, state.flatten())


@pytest.mark.parametrize("rows_per_call", [1, 8 * 4, 8 * 100])
def test_a_prediction_pulled_back_is_the_transposed_jacobian_times_it(rows_per_call):
    timesteps = [7, 300]
    states = normal("states", (torch.arange(2)[:, None], INDEX), (2, 8, 8)).double()
    predictor = CountingPredictor()
    found = query_of(predictor, rows_per_call).pulled_back(states, timesteps)
    assert predictor.num_rows == 4
    assert predictor.largest_call <= max(1, rows_per_call // 8)
    assert not found.requires_grad
    for place, timestep in enumerate(timesteps):
        for sample in range(2):
            own = {"c": CONDITION["c"][sample][None]}
            epsilon = CountingPredictor()(states[place, sample][None], torch.tensor([timestep]), own).flatten()
            expected = jacobian_of(states[place, sample], timestep, own).T @ epsilon
            torch.testing.assert_close(found[place, sample].flatten(), expected)


def test_what_a_pass_back_needs_is_let_go_before_the_next():
    class Held:
        def __init__(self, tensor):
            self.tensor = tensor
            held.add(self)

    class Watched(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            assert not held
            epsilon = super().__call__(noisy_latent, timestep, condition)
            calls.append(len(held))
            return epsilon

    held, calls = weakref.WeakSet(), []
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda each: each.tensor):
        query_of(Watched(), rows_per_call=16).pulled_back(torch.ones(3, 2, 2, 8, 8), 0)
    assert len(calls) == 3
    assert min(calls) > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_where_they_are_off_and_no_weight_gets_one(context):
    network = torch.nn.Conv2d(2, 2, 3, padding=1)

    def predictor(noisy_latent, timestep, condition):
        return network(noisy_latent)

    predictor.alphas_cumprod = CountingPredictor().alphas_cumprod
    with context():
        states = normal("states", (INDEX,), (2, 8, 8))
        found = query_of(predictor).pulled_back(states, 0)
    leaf = states.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(leaf).square().sum() / 2, leaf)
    torch.testing.assert_close(found.clone(), expected)
    assert network.weight.grad is None


def test_a_gradient_that_is_not_finite_names_sample_and_timestep():
    class Root(CountingPredictor):
        def __call__(self, noisy_latent, timestep, condition):
            return noisy_latent.sqrt()

    states = torch.ones(2, 2, 2, 8, 8)
    states[1, 1, 0, 0, 0] = 0
    query = query_of(Root())
    assert query(states, [10, 20]).isfinite().all()
    with pytest.raises(UserError, match="for sample 9 at timestep 20 is not finite"):
        query.pulled_back(states, [10, 20])


def test_a_predictor_without_gradients_is_refused():
    class Frozen(CountingPredictor):
        @torch.no_grad()
        def __call__(self, noisy_latent, timestep, condition):
            return super().__call__(noisy_latent, timestep, condition)

    with pytest.raises(UserError, match="can't be differentiated"):
        query_of(Frozen()).pulled_back(torch.zeros(2, 2, 8, 8), 0)


def test_a_view_is_the_same_query_with_another_condition():
    null = {"c": torch.tensor([7.0, 3.0], dtype=torch.float64)}
    states = normal("states", (INDEX,), (2, 8, 8)).double()
    query = query_of(CountingPredictor(), views={"null": null})
    assert query.under("own") is query
    other = DenoiserQuery(CountingPredictor(), INDEX, condition=null, rows_per_call=100)
    assert torch.equal(query.under("null")(states, 40), other(states, 40))
    assert not torch.equal(query(states, 40), other(states, 40))
    with pytest.raises(UserError, match="shuffled"):
        query.under("shuffled")
