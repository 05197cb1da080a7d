"""Section: the decoder's geometry."""

from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.context import Context
from ldm_privacy.report.page.blocks import Section

QUARTILES = "quartiles_"
CAPTIONS = {
    "distortion": "Local distortion of members and held-out samples, with the images at both ends.",
    "influence": "Mean influence of each latent position.",
    "masks": "How often each latent dimension is kept.",
    "pixel_influence": "Where in the image a step in latent space shows.",
}


@SECTIONS.register("geometry")
def geometry(evidence: Evidence, context: Context) -> Section | None:
    """The figures of distortion, influence and masks; None where there are none."""
    quartiles = {
        name: f"AUROC of {name.removeprefix(QUARTILES)} by quartile of local distortion, lowest to highest."
        for name in context.figures
        if name.startswith(QUARTILES)
    }
    pictures = context.pictures(quartiles | CAPTIONS)
    lead = "Attacks by how much the decoder stretches space around an image, and what masks are made of."
    return Section("geometry", "The decoder's geometry", lead, pictures, place=70) if pictures else None
