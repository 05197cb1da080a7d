"""The denoiser as attacks call it: any number of states at once, a bounded number of rows per pass."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

import torch
from torch import Tensor

from ldm_privacy.device import passes
from ldm_privacy.diffusion import add_noise
from ldm_privacy.errors import UserError
from ldm_privacy.types import Condition, Latent, NoisePredictor, check_shape, condition_under, rows_of

ROWS_PER_GRADIENT = 8
"""A pass with gradients has as many times fewer rows: it holds what the way back needs. Measured: 3 to 8 times as much as one
without, 16 times in a UNet with ten transformer layers in a block; see docs/reference/memory.md."""


@dataclass(eq=False, repr=False)
class DenoiserQuery:
    """Noise predictions for states of one batch of samples.

    Attributes:
        predictor: The noise predictor, called as `predictor(rows, timestep, condition)`.
        sample_index: (batch,) the samples' names in messages.
        condition: Name -> (batch, ...), the own one; each row gets its sample's.
        views: Other conditions of the same samples, by name: "null", "shuffled", ...
        rows_per_call: Rows per network pass, at most.
        autocast: Reduced precision of the network passes (GPU only), or None.
        alphas_cumprod: (num_train_timesteps,) float64, on the device of `sample_index`.
    """

    predictor: NoisePredictor
    sample_index: Tensor
    _: KW_ONLY
    condition: Condition = field(default_factory=dict)
    views: Mapping[str, Condition] = field(default_factory=dict)
    rows_per_call: int
    autocast: torch.dtype | None = None
    alphas_cumprod: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.alphas_cumprod = self.predictor.alphas_cumprod.to(self.sample_index.device, torch.float64)

    def __call__(self, states: Latent, timesteps: int | Sequence[int]) -> Latent:
        """epsilon(states, timesteps), one network row per state; states of all samples and timesteps share passes.

        Args:
            states: (..., batch, channels, height, width).
            timesteps: Broadcasts to the axes before batch: an int, or one timestep per entry of the axis before batch.

        Returns:
            Tensor like `states`, in its dtype.

        Raises:
            UserError: A prediction is not finite; its sample and timestep are named.
        """
        return self._in_passes(self._call, states, timesteps, self.rows_per_call)

    def pulled_back(self, states: Latent, timesteps: int | Sequence[int]) -> Latent:
        """J^T epsilon, J the derivative of epsilon(states, timesteps) by its state: the gradient of 1/2 ||epsilon||^2.

        One pass forward and one back a state, in passes of fewer rows (`ROWS_PER_GRADIENT`); inside `torch.no_grad` and
        `torch.inference_mode` too. No gradient of a weight is touched. Arguments and result as of a call.

        Raises:
            UserError: A prediction or its gradient is not finite; the predictor can't be differentiated.
        """
        return self._in_passes(self._pull_back, states, timesteps, max(1, self.rows_per_call // ROWS_PER_GRADIENT))

    def under(self, view: str) -> "DenoiserQuery":
        """The same under another condition; "own" is itself. Raises UserError where these samples have no such view."""
        return self if view == "own" else replace(self, condition=condition_under(view, self.condition, self.views))

    def at_noise(self, latent: Latent, noise: Tensor, timesteps: Sequence[int]) -> Latent:
        """epsilon(z_t, t) at z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) n, like `noise`: (..., timesteps, *latent.shape)."""
        return self(self.noisy(latent, noise, timesteps), timesteps)

    def noisy(self, latent: Latent, noise: Tensor, timesteps: Sequence[int]) -> Latent:
        """z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) n, like `noise`: (..., timesteps, *latent.shape)."""
        timestep = torch.tensor(timesteps, device=latent.device)
        return add_noise(latent[None], noise, self.alphas_cumprod, timestep)

    def _in_passes(
        self,
        answer: Callable[[Latent, Tensor, Tensor], Latent],
        states: Latent,
        timesteps: int | Sequence[int],
        rows_per_call: int,
    ) -> Latent:
        leading, batch = states.shape[:-4], states.shape[-4]
        rows = states.reshape(-1, *states.shape[-3:])
        timestep = torch.as_tensor(timesteps, device=rows.device).expand(leading)[..., None].expand(*leading, batch)
        sample = torch.arange(batch, device=rows.device).repeat(len(rows) // batch)
        timestep = timestep.reshape(-1)
        outputs = [answer(rows[each], timestep[each], sample[each]) for each in passes(len(rows), rows_per_call)]
        return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]).reshape(states.shape)

    def _call(self, rows: Latent, timestep: Tensor, sample: Tensor) -> Latent:
        epsilon = self._predict(rows, timestep, sample)
        self._check_finite(epsilon, timestep, sample)
        return epsilon

    def _pull_back(self, rows: Latent, timestep: Tensor, sample: Tensor) -> Latent:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = rows.detach().clone().requires_grad_()
            epsilon = self._predict(leaf, timestep, sample)
            if not epsilon.requires_grad:
                raise UserError("the noise predictor can't be differentiated, as this attack must: leave the attack out.")
            (gradient,) = torch.autograd.grad(0.5 * epsilon.square().sum(), leaf)
        # One look for both: a sum is finite where its terms are.
        self._check_finite(epsilon.detach() + gradient, timestep, sample)
        return gradient

    def _predict(self, rows: Latent, timestep: Tensor, sample: Tensor) -> Latent:
        precision = torch.autocast(rows.device.type, self.autocast) if self.autocast else contextlib.nullcontext()
        with precision:
            epsilon = self.predictor(rows, timestep, rows_of(self.condition, sample))
        return check_shape("noise predictor", epsilon, rows.shape).to(rows.dtype)

    def _check_finite(self, found: Latent, timestep: Tensor, sample: Tensor) -> None:
        finite = torch.isfinite(found).flatten(1).all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise UserError(
                f"the noise prediction for sample {int(self.sample_index[sample[row]])} at timestep {int(timestep[row])} "
                "is not finite: look at that sample's latent and at the denoiser's weights."
            )
