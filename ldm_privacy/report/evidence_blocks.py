"""Controls, exposed images and the verdict on the whole set, as blocks of an evaluation's page."""

import io
from collections.abc import Callable

import PIL.Image
import torch
from torch import Tensor

from ldm_privacy.controls import denoiser_free_sentence
from ldm_privacy.evidence import Evidence
from ldm_privacy.evidence.exposure import TOP_SHARE
from ldm_privacy.report.blocks import Block, Cell, DataTable, ImageCard, ImageCards, Note, Paragraph, Thumbnail
from ldm_privacy.report.figures import image_grid
from ldm_privacy.report.tables import short, signed
from ldm_privacy.types import Estimate, Image


def control_blocks(evidence: Evidence, images: Callable[[Tensor], Image]) -> tuple[Block, ...]:
    """Denoiser-free and model-free controls, near-duplicates across the sides with pictures."""
    rows: list[tuple[str | Cell, ...]] = []

    def add(kind: str, name: str, estimate: Estimate, telling: bool) -> None:
        gain = evidence.over_controls.get(name)
        rows.append((kind, name, Cell(short(estimate), tone="leak" if telling else ""), "" if gain is None else signed(gain)))

    model_free, duplicates = evidence.model_free, evidence.duplicates
    for name, estimate in evidence.denoiser_free.items():
        add("without the denoiser", name, estimate, not estimate.lower <= 0.5 <= estimate.upper)
    for name, estimate in (model_free.auroc if model_free is not None else {}).items():
        add("without any model", f"{name} on image features", estimate, estimate.lower > 0.5)
    blocks: list[Block] = [
        DataTable(
            ("control", "what it looks at", "AUROC", f"{evidence.key} above it"),
            tuple(rows),
            "What tells members from held-out without the denoiser, and without any model.",
            numeric=(2, 3),
            note="AUROC over all audited samples, intervals of those without the denoiser holding together; below .5 tells as "
            "much as above it. Last column: the difference on the reported samples, paired. Intervals leave out the "
            "randomness of "
            "training. Random, lowest and deviation masks are in the tables of attacks, permuted labels in the first of them.",
        ),
        Paragraph(denoiser_free_sentence(evidence.denoiser_free)),
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


def exposure_lead(evidence: Evidence) -> str:
    """Who is exposed, in words."""
    exposure = evidence.exposure
    return (
        f"Members by their score under {exposure.key}. {exposure.num_above_all} of {len(exposure.sample_index)} score above "
        "every reported held-out sample. Beside each the held-out image that looks most like it: what draws a score may be "
        "the kind of "
        "image."
    )


def exposure_blocks(evidence: Evidence, images: Callable[[Tensor], Image]) -> tuple[Block, ...]:
    """The most exposed members beside their nearest held-out image; agreement of ranks."""
    exposure = evidence.exposure
    cards = []
    for place, (heldout, similarity) in enumerate(zip(*(each.tolist() for each in evidence.neighbours))):
        member = int(exposure.sample_index[place])
        thumbnails = _pair(images(torch.tensor([member, heldout])), (f"member {member}", f"held-out {heldout}"))
        fpr = float(exposure.fpr[place])
        caption = f"rank {place + 1}, found at FPR ≤ {fpr:.2g}; similarity {similarity:.2f}"
        cards.append(ImageCard(thumbnails, caption))
    blocks: list[Block] = [ImageCards(tuple(cards), "The most exposed members, each beside its nearest held-out image.")]
    if evidence.agreement:
        blocks.append(
            DataTable(
                ("attack", f"rank correlation with {evidence.key}", f"common in the top {TOP_SHARE:.0%}"),
                tuple(
                    (str(key), short(each.correlation), f"{each.top.value:.0%} (chance {each.top.chance:.0%})")
                    for key, each in evidence.agreement.items()
                ),
                "Whether attacks point at the same members (Spearman, members only).",
                numeric=(1, 2),
                note="Intervals are over samples, taken as independent, and leave out the randomness of training.",
            )
        )
    if evidence.by_epoch:
        rows = tuple((str(epoch), short(estimate)) for epoch, estimate in evidence.by_epoch.items())
        caption = "How early they could be seen: rank correlation of each audit's member scores with those of this one."
        blocks.append(DataTable(("epoch", "rank correlation"), rows, caption, numeric=(0, 1)))
    blocks.append(
        Paragraph(
            "exposed.csv beside this report lists every audited member: rank, score, the FPR at which it is found, and "
            "whether it was of the calibration half."
        )
    )
    return tuple(blocks)


def dataset_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """The Welch test of the members as a set, and how many members it takes."""
    if evidence.dataset is None:
        return (Note("No test", f"{evidence.key} gives every sample the same score: there is nothing to test."),)
    test, units = evidence.dataset.test, "groups of " if evidence.report.data.group is not None else ""
    num_tests = len(evidence.dataset.adjusted)
    found = sum(p <= 1 - evidence.report.confidence for p in evidence.dataset.adjusted.values())
    level = 1 - evidence.report.confidence
    false_alarms = evidence.dataset.false_alarms
    # Twice the level leaves room for the error of the simulated shares.
    sound = [point for point in evidence.dataset.by_size if false_alarms.get(point.size, 1.0) <= 2 * level]
    enough = [point.size for point in sound if point.power >= 0.9]
    needed = (
        f"From about {enough[0]} {units}members on nine sets in ten are told apart, while at most {2 * level:.0%} of "
        "as large sets of held-out samples are."
        if enough
        else f"At no size are nine sets in ten told apart with at most {2 * level:.0%} false alarms."
    )
    return (
        Paragraph(
            f"As a set, the {test.num_suspect} reported {units}members score {test.effect_size:.2f} standard deviations "
            f"above the {test.num_heldout} {units}held-out samples (one-sided Welch test of {evidence.key}, "
            f"p = {test.p_value:.2g}). {needed}"
        ),
        Paragraph(
            f"With all {num_tests} attacks and masks tested together (Holm), {found} stand out at "
            f"{level:.2g}. A small p-value says that the two sets differ, not why: read it with the "
            "controls."
        ),
    )


def _pair(images: Image, labels: tuple[str, str]) -> tuple[Thumbnail, ...]:
    return tuple(
        Thumbnail(_png(image), label, is_member=place == 0) for place, (image, label) in enumerate(zip(images, labels))
    )


def _png(image: Tensor) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(image_grid(image[None])).save(buffer, format="PNG")
    return buffer.getvalue()
