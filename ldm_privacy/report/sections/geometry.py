"""Section: the decoder's geometry."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Section

QUARTILES = "quartiles_"
CAPTIONS = {
    "distortion": "Local distortion of members and held-out samples, with the images at both ends.",
    "influence": "Mean influence of each latent position.",
    "masks": "How often each dimension is kept.",
    "pixel_influence": "Where in the image a step in latent space shows.",
}
PIXEL_SPACE = (
    "Pixel space: the denoiser sees the images themselves. There is no decoder, so there are no masks by influence, no local "
    "distortion and no reconstruction errors; masks at random and by standard deviation are over pixels."
)


@SECTIONS.register("geometry")
def geometry(evaluation: Evaluation) -> Section | None:
    """The figures of distortion, influence and masks; None without any. In pixel space a sentence says why."""
    attacks = [name.removeprefix(QUARTILES) for name in evaluation.figures if name.startswith(QUARTILES)]
    quartiles = {
        f"{QUARTILES}{attack}": f"AUROC of {attack} by quartile of local distortion, lowest to highest." for attack in attacks
    }
    pictures = evaluation.pictures(quartiles | CAPTIONS)
    if not evaluation.has_decoder:
        return Section("What masks are made of", PIXEL_SPACE, pictures, place=70)
    lead = "Attacks by how much the decoder stretches space around an image, and what masks are made of."
    return Section("The decoder's geometry", lead, pictures, place=70) if pictures else None
