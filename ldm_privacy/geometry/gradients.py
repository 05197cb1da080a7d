"""The way out of inference mode: geometry needs gradients where its callers have switched them off."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def gradients_enabled(latent: Tensor) -> Iterator[Tensor]:
    """Gradients inside `torch.no_grad` and `torch.inference_mode`: a fresh leaf of the latent to differentiate in.

    Lightning validates under `no_grad` while it fits and under `inference_mode` in `trainer.validate`. Inside this context
    both are left, autocast is off (the influence belongs to decoder and sample, not to the caller's precision), and
    attention runs as plain matrix products: PyTorch's fused kernels have no second derivative, and J v is the derivative
    of J^T u. A module whose parameters were made inside inference mode can't be differentiated; make it outside.

    Args:
        latent: Any float tensor, also an inference tensor.

    Yields:
        A copy of the latent that requires gradients. Detach what leaves the context.
    """
    autocast_off = torch.autocast(latent.device.type, enabled=False)
    with torch.inference_mode(False), torch.enable_grad(), autocast_off, sdpa_kernel(SDPBackend.MATH):
        yield latent.detach().clone().requires_grad_()
