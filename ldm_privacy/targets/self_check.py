"""Whether a target's network is read as it was trained: its declared convention against its rivals, on images."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ldm_privacy.diffusion import PredictionType, add_noise, flow_timestep, levels, training_target
from ldm_privacy.errors import UserError
from ldm_privacy.models.predictor import NetworkPredictor, Time, rows_per_pass
from ldm_privacy.randomness import normal
from ldm_privacy.targets.target import Target
from ldm_privacy.types import Condition, Latent, rows_of

NUM_IMAGES = 64
SIGMAS = (0.3, 0.7)
"""Of a flow; never .5, where sigma and 1 - sigma are the same number."""
SHARES = (0.1, 0.3, 0.6)
"""Of the timesteps of all others: 100, 300 and 600 of 1000."""
LEARNED = 0.8
"""A rival must leave less than this share of what an affine guess leaves: no untrained network does."""
BETTER = 0.9
"""And less than this share of what the declared reading leaves: .8 at most where that is wrong, of nets trained for a second;
where it is right nothing leaves less, whatever the latents are multiplied by."""
STANDARD_ERRORS = 4
"""By which the two must differ, paired over images."""
TIMES: dict[Time, str] = {"sigma_1000": "1000 sigma", "sigma": "sigma", "one_minus_sigma": "1 - sigma"}


class Convention(NamedTuple):
    """One way to read a network: what it is given and what its output means."""

    latents: str
    time: Time | None
    negated: bool
    kind: PredictionType


@dataclass(frozen=True)
class SelfCheck:
    """What the declared reading and its rivals leave unexplained of what the network was trained to output.

    Attributes:
        left: Reading in words -> mean squared error, as a share of what the best affine guess from the same state leaves, mean
            over the noise levels; the declared one first.
        num_images: That it was measured on.
    """

    left: dict[str, float]
    num_images: int

    def __str__(self) -> str:
        (_, declared), *rivals = self.left.items()
        others = ", ".join(f"{name} {value:.2f}" for name, value in rivals)
        return f"leaves {declared:.2f} of what an affine guess leaves, on {self.num_images} images; read otherwise: {others}"


@torch.no_grad()
def self_check(
    target: Target, latent: Latent, condition: Condition, *, seed: int = 0, name: str = "target"
) -> SelfCheck | None:
    """Measure how well the network of a target does what its declared convention says, and what its rivals say.

    Rivals. Of a flow: sigma, 1000 sigma and 1 - sigma as the network's timestep, with either sign of its output, at sigma .3
    and .7. Of others: epsilon, v and clean sample as its output, at a tenth, three tenths and six tenths of the timesteps. Of
    both: latents without their scaling, without their shift, and with mean 0 and variance 1. A wrong schedule of betas can't be
    seen like this. Each is measured as what it leaves of the target of its own training, against the best guess that is affine
    in each channel, so that neither other latents nor another target is easier by itself.

    A rival is believed only where it is clearly better: `LEARNED`, `BETTER` and `STANDARD_ERRORS`. So an untrained network, or
    one that is hardly trained, passes whatever is declared.

    Args:
        target: Its predictor is a `NetworkPredictor`; of another nothing is known, and None is returned.
        latent: (samples, channels, height, width), of images of its kind; the first 64 are used.
        condition: Of those samples.
        seed: Of the noise, one a sample and noise level.
        name: What a refusal calls it: "target", "reference".

    Returns:
        The numbers, for a report. Cost: of a flow 384 network passes, of others 192, and 128 or 192 more for each rival of the
        latents, at most three.

    Raises:
        UserError: A rival fits better; it is named.
    """
    predictor = target.predictor
    if not isinstance(predictor, NetworkPredictor):
        return None
    latent, condition = latent[:NUM_IMAGES], rows_of(condition, slice(NUM_IMAGES))
    is_flow = predictor.prediction_type == "flow"
    time = predictor.time if predictor.time not in (None, "index") else "sigma_1000"  # of 1000 timesteps they are the same
    declared = Convention(DECLARED, time if is_flow else predictor.time, predictor.negated, predictor.prediction_type)
    readings = [declared]
    if is_flow:
        readings += [Convention(DECLARED, time, negated, "flow") for time in TIMES for negated in (False, True)]
    else:
        readings += [declared._replace(kind=kind) for kind in ("epsilon", "v_prediction", "sample")]
    latents = {DECLARED: latent, **rival_latents(target, latent)}
    readings += [declared._replace(latents=name) for name in latents]
    count = len(predictor.alphas_cumprod)
    timesteps = [flow_timestep(sigma, count) for sigma in SIGMAS] if is_flow else [int(share * count) for share in SHARES]
    left = _left(predictor, latents, condition, dict.fromkeys(readings), timesteps, seed, rows_per_pass(predictor, latent))
    found = SelfCheck({_words(each, declared): float(value.mean()) for each, value in left.items()}, len(latent))
    best = min(left, key=lambda each: float(left[each].mean()))
    gain, value = left[declared] - left[best], float(left[best].mean())
    is_sure = float(gain.mean()) > STANDARD_ERRORS * float(gain.std()) / len(gain) ** 0.5
    if best != declared and is_sure and value < min(LEARNED, BETTER * float(left[declared].mean())):
        raise UserError(
            f"{name}: the network fits {_words(best, declared)} better than {_words(declared, best)}, as declared: it leaves "
            f"{value:.2f} against {float(left[declared].mean()):.2f} of what an affine guess leaves, on {len(latent)} images; "
            f"{MEND[_differs(best, declared)]}."
        )
    return found


DECLARED = "latents as declared"
UNSCALED, UNSHIFTED, STANDARD = "unscaled latents", "latents without their shift", "latents of mean 0 and variance 1"
KINDS: dict[PredictionType, str] = {
    "epsilon": "epsilon as its output",
    "v_prediction": "v as its output",
    "sample": "the clean sample as its output",
    "flow": "the flow's velocity as its output",
}
MEND = {
    "latents": "mend scaling_factor and shift_factor in vae/config.json, or the channel map of the codec",
    "time": "mend what its predictor says of time and sign",
    "kind": "mend prediction_type, in scheduler/scheduler_config.json of a folder",
}


def rival_latents(target: Target, latent: Latent) -> dict[str, Latent]:
    """Other coordinates that the latents could have been meant in; of pixels or where they are the same, none."""
    channel_map, found = target.codec.channel_map, {}
    if target.codec.network is None or len(channel_map.shift) != latent.shape[1]:
        return {}
    mean = channel_map.inverse(latent)
    if not torch.allclose(mean, latent, rtol=0.1, atol=0.1):
        found[UNSCALED] = mean
    if channel_map.shift.any():
        found[UNSHIFTED] = replace(channel_map, shift=torch.zeros_like(channel_map.shift))(mean)
    standard = (latent - latent.mean()) / latent.std()
    if not torch.allclose(standard, latent, rtol=0.1, atol=0.1):
        found[STANDARD] = standard
    return found


def _left(
    predictor: NetworkPredictor,
    latents: dict[str, Latent],
    condition: Condition,
    readings: Iterable[Convention],
    timesteps: list[int],
    seed: int,
    batch_size: int,
) -> dict[Convention, Tensor]:
    """Of each reading, (samples,) what it leaves, on the CPU; readings that differ in the output's meaning share passes."""
    found: dict[Convention, list[Tensor]] = {reading: [] for reading in readings}
    abar = predictor.alphas_cumprod
    for index in timesteps:
        outputs: dict[tuple[str, Time | None], Tensor] = {}
        for reading in found:
            latent = latents[reading.latents]
            noise = normal("self-check", (seed, torch.arange(len(latent)), index), latent.shape[1:]).to(latent)
            timestep = torch.full((len(latent),), index, device=latent.device)
            key = (reading.latents, reading.time)
            if key not in outputs:
                network = replace(predictor, time=reading.time, negated=False)
                noisy = add_noise(latent, noise, abar, timestep)
                parts = [slice(start, start + batch_size) for start in range(0, len(latent), batch_size)]
                rows = [network.output(noisy[part], timestep[part], rows_of(condition, part)) for part in parts]
                outputs[key] = torch.cat(rows)
            wanted = training_target(latent, noise, abar, timestep, reading.kind)
            output = -outputs[key] if reading.negated else outputs[key]
            error = (output - wanted).double().square().flatten(1).mean(1)
            found[reading].append((error / _left_by_affine(latent, abar[index], reading.kind)).cpu())
    return {reading: torch.stack(each).mean(0) for reading, each in found.items()}


def _left_by_affine(latent: Latent, abar: Tensor, kind: PredictionType) -> Tensor:
    """Mean squared error of the best guess of a training's target that is affine in z_t in each channel, a scalar.

    With variance V of a channel and z_t = a z0 + b n, of the target p z0 + q n: p^2 V + q^2 - (p a V + q b)^2 / (a^2 V + b^2).
    """
    signal, spread = (float(each) for each in levels(abar.reshape(1).double(), torch.zeros(1, dtype=torch.float64)))
    of_clean, of_noise = {
        "epsilon": (0.0, 1.0),
        "v_prediction": (-spread, signal),
        "sample": (1.0, 0.0),
        "flow": (-1.0, 1.0),
    }[kind]
    variance = latent.double().var((0, 2, 3))
    explained = (of_clean * signal * variance + of_noise * spread).square() / (signal**2 * variance + spread**2)
    return (of_clean**2 * variance + of_noise**2 - explained).mean()


def _differs(reading: Convention, declared: Convention) -> str:
    """In which respect: latents, kind or time (which sign goes with)."""
    return next((each for each in ("latents", "kind") if getattr(reading, each) != getattr(declared, each)), "time")


def _words(reading: Convention, other: Convention) -> str:
    """What tells a reading from another one."""
    if reading.latents != other.latents:
        return reading.latents
    if reading.kind != "flow":
        return KINDS[reading.kind]
    assert reading.time is not None
    return f"{TIMES[reading.time]} as its timestep{' and the negative of its output' if reading.negated else ''}"
