"""The branch gap: how much the condition changes the predicted noise on the guided trajectory."""

from torch import Tensor

from ldm_privacy.types import Latent


def branch_gap(conditional: Latent, unconditional: Latent) -> Tensor:
    """||eps_c - eps_u||_2 / sqrt(numbers of a latent) at one step, (batch,) float64; large at the first step where a caption
    is memorized.

    Args:
        conditional, unconditional: (batch, ...), epsilon of the two branches at the same state.

    Source: Wen et al., ICLR 2024, arXiv 2407.21720, section 3.
    """
    return (conditional.double() - unconditional.double()).flatten(1).square().mean(1).sqrt()
