"""Stage 2 under differential privacy: DP-SGD (Abadi et al. 2016, 1607.00133, algorithm 1) through Opacus."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ldm_privacy.device import passes, rows_within
from ldm_privacy.errors import UserError, reason_of
from ldm_privacy.models.predictor import output_of
from ldm_privacy.randomness import derive_seed
from ldm_privacy.targets.privacy import Privacy
from ldm_privacy.training.denoiser import DenoiserModule
from ldm_privacy.training.stepwise import log_series
from ldm_privacy.types import Condition, Latent, Timestep


class PrivateDenoiserModule(DenoiserModule):
    """Trains a denoiser so that its weights owe little to any one member.

    Each member is in a step with probability batch_size / members, independently (Poisson sampling, which the accountant
    counts on); its gradient is clipped to a norm, normal noise is added to their sum, and AdamW takes that, divided by
    batch_size. Batch and noise are functions of (seed, epoch, step), as all that is random here, so a training that stops goes
    on exactly; and who knows the seed can take the noise out.

    Gradients by sample take memory: 8 bytes a weight and sample. As many samples go through the network together as fit the
    budget of `limit_memory`. Float32, one process, not compiled.

    Args:
        arguments, options: Of `DenoiserModule`.
        privacy: The noise, the norm and delta; `sample_rate` is batch_size / members.
    """

    def __init__(self, *arguments: Any, privacy: Privacy, **options: Any):
        super().__init__(*arguments, **options)
        self.privacy = privacy
        self._hooks: Any = None
        self._noise: torch.Generator | None = None
        self._part = 0

    @property
    def reached(self) -> Privacy:
        """What is guaranteed now."""
        steps = self.trainer.global_step
        return self.privacy.after(steps, epsilon(self.privacy, steps))

    def on_fit_start(self) -> None:
        super().on_fit_start()
        # Not before: a copy of the network, whose weights are an average, is made without them.
        self._hooks = per_sample_hooks(self.network)
        self._hooks.disable_hooks()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        with importing_opacus():
            from opacus.optimizers import DPOptimizer

        self._noise = torch.Generator(self.device)
        return DPOptimizer(
            super().configure_optimizers(),
            noise_multiplier=self.privacy.noise_multiplier,
            max_grad_norm=self.privacy.max_gradient_norm,
            expected_batch_size=self.privacy.sample_rate * self.num_samples,  # type: ignore[arg-type]
            generator=self._noise,
        )

    def configure_gradient_clipping(self, *arguments: Any, **options: Any) -> None:
        """Each sample's gradient is clipped; the noisy sum is not."""

    def batch_indices(self, epoch: int, step: int) -> Tensor:
        """Places of the samples of one step: each with probability `sample_rate`; there may be none."""
        generator = torch.Generator().manual_seed(derive_seed("denoiser-poisson", self.seed, epoch, step))
        drawn = torch.rand(self.num_samples, dtype=torch.float64, generator=generator) < self.privacy.sample_rate
        return drawn.nonzero().flatten().to(self.device)

    def training_step(self, step: int, batch_idx: int) -> Tensor:
        epoch = self.current_epoch
        drawn = self.batch_indices(epoch, batch_idx)
        # Where nobody was drawn, one sample is computed that counts for nothing: the noise is added all the same.
        indices = drawn if len(drawn) else torch.zeros(1, dtype=torch.int64, device=self.device)
        assert self._noise is not None
        self._noise.manual_seed(derive_seed("denoiser-private-noise", self.seed, epoch, batch_idx))
        weights = sum(parameter.numel() for parameter in self.network.parameters())
        parts = passes(len(indices), rows_within(8 * weights, self.device))
        (optimizer,) = self.trainer.optimizers
        self._hooks.enable_hooks()
        means: dict[str, Any] = {}
        for part, rows in enumerate(parts):
            torch.manual_seed(derive_seed("denoiser-step", self.seed, epoch, batch_idx))
            self._share, self._part = rows, part
            losses = self.loss(indices)
            if part < len(parts) - 1:  # its clipped gradients are added up, those by sample forgotten
                losses["loss"].backward()
                optimizer.signal_skip_step()  # type: ignore[attr-defined]
                optimizer.pre_step()  # type: ignore[attr-defined]
                optimizer.zero_grad()
            for name, value in losses.items():
                means[name] = means.get(name, 0) + value.detach() * (rows.stop - rows.start) / len(indices)
        if len(drawn):
            self.note(means, 1.0)
        return losses["loss"] if len(drawn) else 0.0 * losses["loss"]

    def draw_apart(self) -> None:
        """From here on the step's random numbers (dropout) differ between the parts of a step."""
        if self._part:
            torch.manual_seed(derive_seed("denoiser-step-apart", torch.initial_seed(), self._part))

    def on_after_backward(self) -> None:
        self._hooks.disable_hooks()  # a look may ask for gradients of its own

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        log_series(self.trainer, self.stage, self.current_epoch + 1, {"denoiser/epsilon": self.reached.epsilon})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["privacy"] = self.reached.record()

    def teardown(self, stage: str) -> None:
        if self._hooks is not None:
            self._hooks.cleanup()


def epsilon(privacy: Privacy, num_steps: int) -> float:
    """Epsilon after so many steps, by Opacus' RDP accountant (Mironov, Talwar, Zhang 2019, 1908.10530).

    An upper bound that is there at once for any noise. Its PRV accountant finds about a tenth less (docs/defences.md).
    """
    with importing_opacus():
        from opacus.accountants import RDPAccountant

    if not num_steps:
        return 0.0
    accountant = RDPAccountant()
    accountant.history = [(privacy.noise_multiplier, privacy.sample_rate, num_steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the smallest alpha is optimal": an upper bound all the same
        return float(accountant.get_epsilon(privacy.delta))


@contextmanager
def importing_opacus() -> Iterator[None]:
    """Around its imports: without the handler that it gives to the log of all libraries; UserError where one fails."""
    before = logging.root.handlers[:]
    try:
        yield
    except ImportError as error:
        mend = 'pip install -U "ldm-privacy[privacy]"'
        raise UserError(f"denoiser.privacy: Opacus can't be imported ({reason_of(error)}); {mend}.") from error
    finally:
        logging.root.handlers[:] = before


def per_sample_hooks(network: nn.Module) -> Any:
    """Opacus' hooks in a network in training mode: a backward pass of a mean over samples leaves `grad_sample` in parameters.

    Parameters keep their names, and the network its class. Torch warns of the first layers, which are asked with what needs no
    gradient: they are given what they need all the same. Raises UserError where Opacus can't be imported.
    """
    with importing_opacus():
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
    return GradSampleHooks(network, loss_reduction="mean")


def check_per_sample_gradients(network: nn.Module, latent: Latent, timestep: Timestep, told: Condition) -> None:
    """Raise UserError unless the hooks find of each sample the gradient that it has alone.

    Of a copy of the network, as if trained (no weight is 0), without dropout. So layers that Opacus doesn't know, and those
    that mix the samples of a batch, are found before anything is trained, and an Opacus that can't be imported. A pass of the
    batch and one of each sample, forward and back.
    """
    advice = "DP-SGD needs the gradient of each image alone; use another denoiser.network."
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UserError(f"denoiser.privacy: {type(layer).__name__} ('{name}') mixes the images of a batch. {advice}")
    network = copy.deepcopy(network).to(latent.device).train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape).to(parameter)
        for layer in network.modules():
            if isinstance(layer, nn.modules.dropout._DropoutNd):
                layer.eval()

        def loss(rows: slice) -> Tensor:
            given = {name: value[rows] for name, value in told.items()}
            return output_of(network, latent[rows], timestep[rows], given).square().flatten(1).mean(1).mean()

        parameters = dict(network.named_parameters())
        try:
            alone = [
                torch.autograd.grad(loss(slice(row, row + 1)), list(parameters.values()), allow_unused=True)
                for row in range(len(latent))
            ]
            per_sample_hooks(network)
            loss(slice(None)).backward()
        except UserError:
            raise
        except Exception as error:  # libraries raise whatever they stumble over in layers that they don't know
            raise UserError(f"denoiser.privacy: Opacus can't take this network ({reason_of(error)}). {advice}") from error
    for place, (name, parameter) in enumerate(parameters.items()):
        found = parameter.grad_sample  # type: ignore[attr-defined]
        if found is None or any(each[place] is None for each in alone):
            raise UserError(f"denoiser.privacy: the weight '{name}' has no part in the output. {advice}")
        expected = torch.stack([each[place] for each in alone])
        if not torch.allclose(found, expected, rtol=1e-2, atol=1e-4 * float(expected.abs().max()) + 1e-8):
            raise UserError(
                f"denoiser.privacy: of the weight '{name}' Opacus finds other gradients than images alone. {advice}"
            )
