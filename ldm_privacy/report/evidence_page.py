"""The report: evidence laid out as one page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.evidence import Evidence, verdict_of
from ldm_privacy.report.blocks import Block, Bullets, Code, KeyValues, Paragraph, Picture, Subheading, Verdict
from ldm_privacy.report.evidence_blocks import control_blocks, dataset_blocks, exposure_blocks, exposure_lead
from ldm_privacy.report.evidence_tables import attack_tables, attacks_lead
from ldm_privacy.report.page import Page, Section
from ldm_privacy.report.svg import figure_svg
from ldm_privacy.types import Image

CAPTIONS = {
    "onset": "Three signs of memorization on one time axis, each with its own onset.",
    "memorization": "AUROC of each audit with its interval; the untrained denoiser is epoch 0.",
    "roc": "ROC curves on logarithmic axes: the left edge is what an attacker who must not be wrong can do.",
    "auroc_by_timestep": "AUROC over timesteps; dots mark the timestep that the calibration half chose.",
    "keep_fraction": "AUROC over the share of latent dimensions kept, by influence and by its controls.",
    "histogram": "Where members and held-out samples score.",
    "p_value": "How fast a suspect set is told from held-out images as it grows.",
    "distortion": "Local distortion of members and held-out samples, with the images at both ends.",
    "influence": "Mean influence of each latent position.",
    "masks": "How often each latent dimension is kept.",
    "pixel_influence": "Where in the image a step in latent space shows.",
}
LIMITS = (
    "Intervals are over the audited samples. They leave out the randomness of training: another seed gives another model.",
    "ASR picks its threshold, and 'oracle' its timestep, on the reported samples themselves: both are optimistic and stand "
    "here for comparison with published numbers only.",
    "These attacks are a lower bound on what can be learned. A stronger one may find what they don't.",
    "A false-positive rate below one in the number of held-out samples can't be measured.",
    "Attack numbers speak of these images. Members that are rarer or stranger than the audited ones can be more exposed.",
    "A high score of one image is a reason to look, not proof: the false-positive rate beside it says how often an image that "
    "was never seen scores as high.",
)


@dataclass(frozen=True)
class Protocol:
    """What a reader needs to repeat the evaluation.

    Attributes:
        name: Of the run or checkpoint.
        epoch: Finished epochs of the denoiser.
        facts: Name -> value: data, split, seeds, versions.
        commands: To train and to evaluate.
        config: The resolved config as YAML.
    """

    name: str
    epoch: int
    facts: Mapping[str, str]
    commands: Sequence[str]
    config: str


def evidence_page(
    evidence: Evidence,
    protocol: Protocol,
    figures: Mapping[str, Figure],
    images: Callable[[Tensor], Image],
    *,
    onsets: Sequence[str] = (),
) -> Page:
    """The page of an evaluation.

    Args:
        evidence: See `gather_evidence`.
        protocol: How it came about.
        figures: By name, as in `CAPTIONS`; `quartiles_<attack>` beside them. Those that are there are shown.
        images: Sample indices -> images.
        onsets: A sentence for each onset; empty where the training is not known.
    """
    verdict = verdict_of(evidence)
    report = evidence.report
    picture = _Pictures(figures)
    sections = [
        Section("attacks", "How well attacks tell members apart", attacks_lead(evidence), attack_tables(evidence)),
        Section("controls", "What else could explain it", _CONTROLS_LEAD, control_blocks(evidence, images)),
    ]
    curves = picture("onset", "memorization")
    if curves or onsets:
        lead = "When it set in. A rise counts from the audit of the untrained denoiser; looking again and again is paid for."
        sections.append(Section("onset", "Memorization over the training", lead, (*map(Paragraph, onsets), *curves)))
    sections += [
        Section("curves", "Choices and curves", "", picture("roc", "auroc_by_timestep", "keep_fraction", "histogram")),
        Section("images", "Which images are exposed", exposure_lead(evidence), exposure_blocks(evidence, images)),
        Section("set", "The training set as a whole", "", (*dataset_blocks(evidence), *picture("p_value"))),
    ]
    quartiles = picture(*(name for name in figures if name.startswith("quartiles_")))
    if geometry := (*quartiles, *picture("distortion", "influence", "masks", "pixel_influence")):
        lead = "Attacks by how much the decoder stretches space around an image, and what masks are made of."
        sections.append(Section("geometry", "The decoder's geometry", lead, geometry))
    sections += [
        Section("protocol", "Protocol", "What it takes to repeat this.", _protocol(protocol)),
        Section("limits", "What these numbers don't mean", "", (Bullets(LIMITS),)),
    ]
    num_members, num_heldout = int(report.data.is_member.sum()), int((~report.data.is_member).sum())
    return Page(
        f"Membership audit of {protocol.name}",
        f"Epoch {protocol.epoch}; {num_members} members and {num_heldout} held-out images audited, half of them to choose, "
        f"half to report; {report.confidence:.0%} intervals",
        Verdict(verdict.sentences, verdict.tone),
        tuple(sections),
        f"ldm_privacy {protocol.facts.get('version', '')}",
    )


_CONTROLS_LEAD = (
    "An attack's number counts only above what is there without the model. Each control is run on the same samples, whatever "
    "the attacks show."
)


class _Pictures:
    """The figures that are there, as pictures."""

    def __init__(self, figures: Mapping[str, Figure]):
        self.figures = figures

    def __call__(self, *names: str) -> tuple[Picture, ...]:
        found = []
        for name in names:
            if (figure := self.figures.get(name)) is not None:
                attack = name.removeprefix("quartiles_")
                caption = CAPTIONS.get(name, f"AUROC of {attack} by quartile of local distortion, lowest to highest.")
                found.append(Picture(figure_svg(figure), caption, caption))
        return tuple(found)


def _protocol(protocol: Protocol) -> tuple[Block, ...]:
    return (
        KeyValues(tuple(protocol.facts.items())),
        Code("\n".join(protocol.commands), "commands"),
        Subheading("Config"),
        Code(protocol.config, "config.yaml"),
    )
