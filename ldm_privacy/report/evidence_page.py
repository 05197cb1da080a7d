"""The report: evidence laid out as one page."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import PIL.Image
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ldm_privacy.audit import TUNED, AuditRow
from ldm_privacy.evidence import Evidence, verdict_of
from ldm_privacy.report.figures import image_grid
from ldm_privacy.report.page import (
    Block,
    Bullets,
    Cell,
    Code,
    DataTable,
    ImageCard,
    ImageCards,
    KeyValues,
    Note,
    Page,
    Paragraph,
    Picture,
    Section,
    Subheading,
    Thumbnail,
    Verdict,
)
from ldm_privacy.report.svg import figure_svg
from ldm_privacy.report.tables import INTERVAL_NOTE, short, signed
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
        Section("attacks", "How well attacks tell members apart", _attacks_lead(evidence), _attack_tables(evidence)),
        Section("controls", "What else could explain it", _CONTROLS_LEAD, _controls(evidence, images)),
    ]
    curves = picture("onset", "memorization")
    if curves or onsets:
        lead = "When it set in. A rise counts from the audit of the untrained denoiser; looking again and again is paid for."
        sections.append(Section("onset", "Memorization over the training", lead, (*map(Paragraph, onsets), *curves)))
    sections += [
        Section("curves", "Choices and curves", "", picture("roc", "auroc_by_timestep", "keep_fraction", "histogram")),
        Section("images", "Which images are exposed", _images_lead(evidence), _exposed(evidence, images)),
        Section("set", "The training set as a whole", "", (*_dataset(evidence), *picture("p_value"))),
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


def _attacks_lead(evidence: Evidence) -> str:
    if all(each.is_resolvable for each in evidence.report.rows[0].metrics.tpr_at_fpr):
        return "Members are the positive class; .5 is guessing."
    coarse = [each.target_fpr for each in evidence.report.rows[0].metrics.tpr_at_fpr if not each.is_resolvable]
    return (
        f"Members are the positive class; .5 is guessing. {evidence.report.rows[0].metrics.num_heldout} held-out samples "
        f"can't resolve a false-positive rate of {' or '.join(f'{target:g}' for target in coarse)}: there the TPR allows none."
    )


def _attack_tables(evidence: Evidence) -> tuple[Block, ...]:
    report = evidence.report
    columns = ["attack", "mask", "kept", "t", "AUROC", "permuted labels", "oracle"]
    columns += [f"TPR@{100 * target:g}%FPR" for target in report.target_fprs]
    columns += [f"carried over for {100 * target:g}%: TPR, FPR" for target in report.target_fprs[:1]]
    columns += ["ASR", f"TNR@{100 * report.target_fprs[0]:g}%FNR"]
    rows, bold = [], []
    for place, row in enumerate(report.rows):
        if row.key == evidence.key:
            bold.append(place)
        rows.append(_attack_row(row, evidence))
    table = DataTable(
        tuple(columns),
        tuple(rows),
        "Attack and mask, each on the reporting half at the timestep that the calibration half chose.",
        numeric=range(2, len(columns)),
        emphasised=bold,
        note=f"{INTERVAL_NOTE} 'Permuted labels': the band in which the AUROC lies where labels mean nothing. 'Carried over': "
        "the threshold was set on the calibration half. TNR@FNR is what published tables of these attacks call TPR@FPR, "
        "with the sides exchanged. In bold: the attack and mask that the verdict rests on.",
    )
    gains = [
        (row.key.attack, _label(row), other, signed(gain), Cell(f"{gain.p_value:.2g}", tone="" if gain.lower > 0 else "muted"))
        for row in report.rows
        if row.key.mask not in report.data.controls
        for other, gain in row.gains.items()
    ]
    blocks: list[Block] = [table]
    if gains:
        blocks.append(
            DataTable(
                ("attack", "mask", "against", "AUROC gained", "p"),
                tuple(gains),
                "What masks of largest influence gain, paired on the same samples.",
                numeric=(3, 4),
                note="A gain counts where its interval lies above 0 against the unmasked attack, a random mask and one ranked "
                "by standard deviation, of the same size. p-values are of single tests, not adjusted for their number.",
            )
        )
    return tuple(blocks)


def _attack_row(row: AuditRow, evidence: Evidence) -> tuple[str | Cell, ...]:
    permuted, carried = evidence.permuted[row.key], row.carried[0]
    band = permuted.band
    area = short(row.metrics.auroc)
    outside = row.metrics.auroc.value > band.upper
    return (
        row.key.attack,
        _label(row),
        f"{row.keep_fraction:.0%}",
        "-" if row.timestep is None else str(row.timestep),
        Cell(area, tone="exposed" if outside and row.metrics.auroc.lower > 0.5 else ""),
        f"{band.lower:.3f} to {band.upper:.3f}",
        f"{row.oracle_auroc:.3f}",
        *(short(each) for each in row.metrics.tpr_at_fpr),
        f"{short(carried.tpr)}, {short(carried.fpr)}",
        f"{row.metrics.asr.value:.3f}",
        f"{row.metrics.tnr_at_fnr[0]:.3f}",
    )


def _label(row: AuditRow) -> str:
    return f"{TUNED} ({row.keep_fraction:.0%})" if row.key.mask == TUNED else row.key.mask


def _controls(evidence: Evidence, images: Callable[[Tensor], Image]) -> tuple[Block, ...]:
    rows: list[tuple[str | Cell, ...]] = []
    for name, estimate in evidence.denoiser_free.items():
        telling = not estimate.lower <= 0.5 <= estimate.upper
        rows.append(("without the denoiser", name, Cell(short(estimate), tone="leak" if telling else "")))
    model_free, duplicates = evidence.model_free, evidence.duplicates
    for name, estimate in (model_free.auroc if model_free is not None else {}).items():
        tone = "leak" if estimate.lower > 0.5 else ""
        rows.append(("without any model", f"{name} on image features", Cell(short(estimate), tone="leak" if tone else "")))
    blocks: list[Block] = [
        DataTable(
            ("control", "what it looks at", "AUROC"),
            tuple(rows),
            "What tells members from held-out without the denoiser, and without any model.",
            numeric=(2,),
            note="Over all audited samples. Below .5 tells as much as above it. Random, lowest and deviation masks are in the "
            "table of attacks, permuted labels in its column.",
        )
    ]
    if model_free is None:
        blocks.append(Note("No model-free control", "There are too few samples on a side for cross-fitted classifiers."))
    elif model_free.leaks:
        blocks.append(Note("The split leaks", model_free.sentence, "leak"))
    else:
        blocks.append(Paragraph(model_free.sentence))
    blocks.append(Paragraph(duplicates.sentence))
    if duplicates.count:
        cards = []
        for (member, heldout), similarity in list(zip(duplicates.pairs.tolist(), duplicates.similarity.tolist()))[:6]:
            pair = images(torch.tensor([member, heldout]))
            thumbnails = _pair(pair, (f"member {member}", f"held-out {heldout}"))
            cards.append(ImageCard(thumbnails, f"similarity {similarity:.3f}"))
        blocks.append(ImageCards(tuple(cards), "The most similar pairs across the sides."))
    return tuple(blocks)


def _images_lead(evidence: Evidence) -> str:
    exposure = evidence.exposure
    return (
        f"Members by their score under {exposure.key}. {exposure.num_above_all} of {len(exposure.sample_index)} score above "
        "every held-out sample. Beside each the held-out image that looks most like it: what attracts a score may be the kind of "
        "image."
    )


def _exposed(evidence: Evidence, images: Callable[[Tensor], Image]) -> tuple[Block, ...]:
    exposure = evidence.exposure
    cards = []
    for place, (heldout, similarity) in enumerate(zip(*(each.tolist() for each in evidence.neighbours))):
        member = int(exposure.sample_index[place])
        thumbnails = _pair(images(torch.tensor([member, heldout])), (f"member {member}", f"held-out {heldout}"))
        fpr = float(exposure.fpr[place])
        caption = f"rank {place + 1}, found at FPR {fpr:.3g}; similarity {similarity:.2f}"
        cards.append(ImageCard(thumbnails, caption))
    blocks: list[Block] = [ImageCards(tuple(cards), "The most exposed members, each beside its nearest held-out image.")]
    if evidence.agreement:
        blocks.append(
            DataTable(
                ("attack", f"rank correlation with {evidence.key}"),
                tuple((str(key), short(estimate)) for key, estimate in evidence.agreement.items()),
                "Whether attacks point at the same members (Spearman, members only).",
                numeric=(1,),
            )
        )
    blocks.append(Paragraph("exposed.csv beside this report lists every audited member with score, rank and FPR."))
    return tuple(blocks)


def _dataset(evidence: Evidence) -> tuple[Block, ...]:
    test = evidence.dataset.test
    num_tests = len(evidence.dataset.adjusted)
    found = sum(p <= 1 - evidence.report.confidence for p in evidence.dataset.adjusted.values())
    enough = [point.size for point in evidence.dataset.by_size if point.power >= 0.9]
    needed = f"From about {enough[0]} members on, nine sets in ten are told apart." if enough else "No size is enough for that."
    return (
        Paragraph(
            f"As a set, the {test.num_suspect} reported members score {test.effect_size:.2f} standard deviations above the "
            f"{test.num_heldout} held-out samples (one-sided Welch test of {evidence.key}, p = {test.p_value:.2g}). {needed}"
        ),
        Paragraph(
            f"With all {num_tests} attacks and masks tested together (Holm), {found} stand out at "
            f"{1 - evidence.report.confidence:.2g}. A small p-value says that the two sets differ, not why: read it with the "
            "controls."
        ),
    )


def _protocol(protocol: Protocol) -> tuple[Block, ...]:
    return (
        KeyValues(tuple(protocol.facts.items())),
        Code("\n".join(protocol.commands), "commands"),
        Subheading("Config"),
        Code(protocol.config, "config.yaml"),
    )


def _pair(images: Image, labels: tuple[str, str]) -> tuple[Thumbnail, ...]:
    return tuple(
        Thumbnail(_png(image), label, is_member=place == 0) for place, (image, label) in enumerate(zip(images, labels))
    )


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image_grid(image[None])).save(buffer, format="PNG")
    return buffer.getvalue()
