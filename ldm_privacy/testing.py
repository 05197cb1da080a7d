"""What every attack must keep to, as one function: for the built-in ones and for those of a plug-in's test suite."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from ldm_privacy import randomness
from ldm_privacy.attacks.base import Attack, UnmaskableAttack, membership_scores
from ldm_privacy.attacks.query import DenoiserQuery
from ldm_privacy.attacks.runner import RunOptions, draw_noise, masked_sums
from ldm_privacy.errors import UserError
from ldm_privacy.types import Condition, Latent, Timestep, rows_of


class CountingPredictor:
    """A small smooth noise predictor with fixed pseudo-random weights, float64, that counts the rows it was asked for.

    `epsilon(z, t, c) = tanh(W z + t / 1000 + 0.1 c)`, W mixing all dimensions.

    Args:
        latent_shape: (channels, height, width).
        num_train_timesteps: Length of its linear noise schedule.

    Attributes:
        alphas_cumprod: (num_train_timesteps,).
        num_rows: Rows asked for since the last reset to 0.
        largest_call: Rows of the largest single call.
    """

    def __init__(self, latent_shape: Sequence[int] = (2, 8, 8), num_train_timesteps: int = 1000):
        size = torch.Size(latent_shape).numel()
        self.alphas_cumprod = (1 - torch.linspace(1e-4, 2e-2, num_train_timesteps, dtype=torch.float64)).cumprod(0)
        self.num_rows = self.largest_call = 0
        self._weight = randomness.normal("weight", (torch.arange(size),), (size,)).double() / size**0.5

    def __call__(self, noisy_latent: Latent, timestep: Timestep, condition: Condition) -> Latent:
        """epsilon, like `noisy_latent`; `timestep` (batch,) integers, `condition` {"c": (batch,) numbers} or {}."""
        is_integer_row = timestep.shape == (len(noisy_latent),) and not timestep.is_floating_point()
        assert is_integer_row, "the timestep must be an integer tensor (batch,)"
        self.num_rows += len(noisy_latent)
        self.largest_call = max(self.largest_call, len(noisy_latent))
        shift = timestep / 1000 + 0.1 * condition.get("c", 0)
        mixed = noisy_latent.flatten(1) @ self._weight.to(noisy_latent)
        return torch.tanh(mixed + shift[:, None].to(noisy_latent)).reshape(noisy_latent.shape)


def check_attack(attack: Attack, *, timesteps: Sequence[int] = (0, 10, 20, 40)) -> None:
    """Runs the contract on an attack. Pure CPU, well under a second for attacks of a few queries.

    Checked: attributes; shape, dtype and finiteness of the statistics; the same numbers again, and in another order, in
    other batches, among other timesteps, under a budget of one row per pass; global random state and latents untouched;
    noise that is drawn = the same noise handed in; another seed changes attacks that draw and no others; conditions, and the
    `views` that it names, reach the predictor row by row; samples without one of them refused; as many network rows as
    `num_queries` says, whatever the number of masks; the keep-all mask = the plain sum of the contributions; kept + dropped =
    total for each of its sums; masks don't touch each other; masks refused where there are none; timesteps outside the
    schedule refused; the orientation is applied; statistics above 0 where the attack says that they are compared as
    logarithms.

    Args:
        attack: The instance.
        timesteps: At least two that the attack accepts, of a linear schedule of 1000.

    Raises:
        AssertionError: Says what the attack does not keep to.
    """
    _Contract(attack, list(timesteps)).check()


class _Contract:
    num_samples = 6

    def __init__(self, attack: Attack, timesteps: list[int]):
        assert isinstance(attack, Attack), f"{attack!r} must be an instance of ldm_privacy.attacks.Attack"
        self.attack, self.timesteps = attack, timesteps
        self.predictor = CountingPredictor()
        # Far from 0, ..., 5, so that an attack that numbers samples by their place in the batch is caught.
        self.sample_index = torch.tensor([900, 17, 3, 250, 41, 1000003])
        shape = (2, 8, 8)
        self.latent = randomness.normal("latent", (self.sample_index,), shape).double()
        self.condition = {"c": randomness.normal("condition", (self.sample_index,), ()).double()}
        self.views = {view: {"c": randomness.normal(view, (self.sample_index,), ()).double()} for view in attack.views}
        keep = randomness.uniform("keep", (self.sample_index,), shape) < 0.6
        self.masks = torch.stack([torch.ones_like(keep), keep, ~keep][: 3 if attack.maskable else 1])

    def sums(
        self,
        samples: Tensor | slice = slice(None),
        *,
        keep_masks: Tensor | None = None,
        timesteps: list[int] | None = None,
        **changed: Unpack[RunOptions],
    ) -> tuple[Tensor, ...]:
        options: RunOptions = {
            "condition": rows_of(self.condition, samples),
            "views": {view: rows_of(condition, samples) for view, condition in self.views.items()},
            "sample_index": self.sample_index[samples],
            "seed": 3,
            **changed,
        }
        masks = (self.masks if keep_masks is None else keep_masks)[:, samples]
        return masked_sums(self.attack, self.predictor, self.latent[samples], timesteps or self.timesteps, masks, **options)

    def statistics(self, samples: Tensor | slice = slice(None), **options: Any) -> Tensor:
        return self.attack.combine(*self.sums(samples, **options))

    def check(self) -> None:
        self.attributes()
        state, latent = torch.get_rng_state(), self.latent.clone()
        self.predictor.num_rows = 0
        total = self.statistics()
        rows = self.predictor.num_rows
        assert torch.equal(torch.get_rng_state(), state), "the attack uses the global random state; use the noise it is given"
        assert torch.equal(self.latent, latent), "the attack changes the latents that it is given"
        num_timesteps = len(self.timesteps) if self.attack.per_timestep else 1
        shape = (len(self.masks), num_timesteps, self.num_samples)
        assert total.shape == shape, f"statistics of shape {tuple(total.shape)} instead of (masks, timesteps, batch) = {shape}"
        assert total.dtype == torch.float64, f"statistics are {total.dtype}, not float64"
        assert torch.isfinite(total).all(), "a statistic is not finite"
        queries = self.attack.num_queries(self.timesteps)
        assert rows == queries * self.num_samples, (
            f"{rows / self.num_samples:g} network rows per sample for {len(self.masks)} masks, but num_queries says {queries}"
        )
        assert not self.attack.log_scale or (total > 0).all(), "log_scale is True, but a statistic is not positive"
        scores = membership_scores(self.attack, total)
        assert torch.equal(scores, total if self.attack.higher_means_member else -total), "the orientation is not applied"
        self.batching(total)
        noise = self.noise(total)
        self.refusals()
        if self.attack.maskable:
            self.masking(total, noise)

    def attributes(self) -> None:
        attack = self.attack
        assert isinstance(attack.higher_means_member, bool), "higher_means_member must be True or False"
        assert isinstance(attack.log_scale, bool), "log_scale must be True or False"
        assert isinstance(attack.num_draws, int), "num_draws must be an int"
        assert attack.num_draws >= 0, "num_draws must be >= 0"
        assert attack.maskable is not isinstance(attack, UnmaskableAttack), (
            "an attack without masks derives from UnmaskableAttack, any other from Attack"
        )

    def batching(self, total: Tensor) -> None:
        _same(self.statistics(), total, "running the attack twice changes its statistics")
        order = torch.tensor([4, 0, 5, 2, 1, 3])
        _same(self.statistics(order), total[..., order], "the order of the samples changes their statistics")
        single = [self.statistics(slice(place, place + 1)) for place in range(self.num_samples)]
        _same(torch.cat(single, -1), total, "a sample alone gets another statistic than in a batch")
        self.predictor.largest_call = 0
        _same(self.statistics(memory_budget=1), total, "the memory budget changes the statistics")
        assert self.predictor.largest_call == 1, "the attack passes by the query: more rows in a pass than the budget allows"
        other = self.statistics(condition={"c": self.condition["c"].roll(1)})
        assert not torch.allclose(other, total, atol=0), "the condition does not reach the predictor"
        for view in self.views:
            other = self.statistics(views={**self.views, view: {"c": self.views[view]["c"].roll(1)}})
            assert not torch.allclose(other, total, atol=0), f"views names '{view}', but it does not reach the predictor"
        if self.attack.per_timestep:
            subset = self.statistics(timesteps=self.timesteps[1::-1])
            _same(subset, total[:, [1, 0]], "a timestep's statistic depends on which other timesteps are asked for")

    def noise(self, total: Tensor) -> Tensor:
        """The attack's noise, where it has any."""
        timesteps = self.attack.grid(self.timesteps, len(self.predictor.alphas_cumprod))
        noise = draw_noise(self.attack, self.latent, timesteps, sample_index=self.sample_index, seed=3)
        other_seed = self.statistics(seed=4)
        if not self.attack.num_draws:
            _same(other_seed, total, "num_draws is 0, but the seed changes the statistics")
            return noise
        assert not torch.allclose(other_seed, total, atol=0), "num_draws is not 0, but the seed does not change the statistics"
        _same(self.statistics(noise=noise, seed=4), total, "noise handed in gives another statistic than the same noise drawn")
        return noise

    def refusals(self) -> None:
        for view in self.views:
            others = {name: condition for name, condition in self.views.items() if name != view}
            assert _refuses(lambda: self.statistics(views=others)), f"views names '{view}', but the attack does without"  # noqa: B023
        if not self.attack.maskable:
            holes = self.masks.clone()
            holes[0, 0, 0, 0, 0] = False
            assert _refuses(lambda: self.statistics(keep_masks=holes)), "the attack has no mask, but accepts one"
        if self.attack.per_timestep:
            for timestep in (-1, len(self.predictor.alphas_cumprod)):
                assert _refuses(lambda: self.statistics(timesteps=[timestep])), (  # noqa: B023
                    f"timestep {timestep} is outside the schedule, but the attack accepts it"
                )

    def masking(self, total: Tensor, noise: Tensor) -> None:
        for place in range(len(self.masks)):
            alone = self.statistics(keep_masks=self.masks[place : place + 1])
            _same(alone, total[place : place + 1], "a mask's statistic depends on the other masks")
        for term in self.sums():
            _same(term[1] + term[2], term[0], "the sums over kept and over dropped dimensions don't add up to the total")
        timesteps = self.attack.grid(self.timesteps, len(self.predictor.alphas_cumprod))
        query = DenoiserQuery(self.predictor, self.sample_index, condition=self.condition, views=self.views, rows_per_call=1024)
        terms = self.attack.contributions(query, self.latent, timesteps, noise)
        terms = (terms,) if isinstance(terms, Tensor) else terms
        unmasked = self.attack.combine(*(term.sum((2, 3, 4))[None] for term in terms))
        _same(total[:1], unmasked, "keep fraction 1 is not the unmasked statistic")


def _same(value: Tensor, expected: Tensor, complaint: str) -> None:
    """Equal to float64 rounding, amplified by the few products of a statistic: 1e-9 of the largest one."""
    difference = float((value - expected).abs().max())
    assert difference <= 1e-9 * float(expected.abs().max()), f"{complaint} (by {difference:.3g})"


def _refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except UserError:
        return True
    return False
