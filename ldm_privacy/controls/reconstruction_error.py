"""Control: does the codec reproduce members better?"""

from ldm_privacy.controls.finding import WITHOUT_DENOISER, Case, Finding
from ldm_privacy.registry import CONTROLS


@CONTROLS.register("reconstruction_error")
def reconstruction_error(case: Case) -> Finding | None:
    """The mean absolute error of encoding and decoding, turned round. No network passes; None where it wasn't measured."""
    error = case.samples.reconstruction_error
    meaning = "the autoencoder itself leaks (it was trained on the members, or the images differ)"
    return None if error is None else Finding("reconstruction error", WITHOUT_DENOISER, meaning=meaning, score=-error)
