"""Section: what else could explain it."""

from ldm_privacy.registry import SECTIONS
from ldm_privacy.report.evaluation import Evaluation
from ldm_privacy.report.page.blocks import Block, Cell, DataTable, ImagePairs, Note, Paragraph, Section
from ldm_privacy.report.tables import short

NUM_PAIRS = 6
"""Of a finding that are shown."""


@SECTIONS.register("controls")
def controls(evaluation: Evaluation) -> Section:
    """The AUROC of every control with one, what each found in words, pairs across the sides as pictures."""
    evidence = evaluation.evidence
    kinds = list(dict.fromkeys(each.looks_at for each in evidence.findings.values()))
    findings = sorted(evidence.findings.values(), key=lambda each: kinds.index(each.looks_at))
    rows = []
    for each in findings:
        if each.estimate is not None:
            area = Cell(short(each.estimate), tone="leak" if each.is_telling else "")
            gain = evidence.over_controls.get(each.name)
            rows.append((each.looks_at, each.name, area, "" if gain is None else short(gain, "+")))
    blocks: list[Block] = [
        DataTable(
            ("kind", "control", "AUROC", f"{evidence.insider} above it"),
            rows,
            "What tells members from held-out without the denoiser that is audited, and without any model.",
            num_texts=2,
            note="AUROC over all audited samples, intervals of a kind without the denoiser holding together; below .5 tells "
            "as much as above it. Last column: the difference on the reported samples, paired. Intervals leave out the "
            "randomness of training. Random, lowest and deviation masks are in the tables of attacks, permuted labels in the "
            "first of them.",
        )
    ]
    for sentence in dict.fromkeys(each.sentence for each in findings if each.sentence):
        said = [each for each in findings if each.sentence == sentence]
        if any(each.leaks for each in said):
            blocks.append(Note("The split leaks", sentence, "leak"))
        else:
            blocks.append(Note(f"No {said[0].name}", sentence) if said[0].is_missing else Paragraph(sentence))
    for each in findings:
        if each.pairs:
            pairs = [evaluation.pair(*pair) for pair in each.pairs[:NUM_PAIRS]]
            blocks.append(ImagePairs(pairs, f"The most telling pairs across the sides: {each.name}."))
    lead = (
        "An attack's number counts only above what is there without the model. Each control is run on the same samples, "
        "whatever the attacks show."
    )
    return Section("What else could explain it", lead, blocks, place=20)
