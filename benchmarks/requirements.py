"""How often requirements are passed, failed and undecided where the truth is known.

    python -m benchmarks.requirements [--num-audits 100] [--num-attacks 5] [--seed 0]

Audits of normal scores of attacks that share nothing and know equally much: of several the worst counts, so this is the hardest
case. A truth of .55 is AISVS's margin.
"""

import argparse
import time
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.evidence.gather import Evidence
from ldm_privacy.evidence.limits.limit import DECISIONS
from ldm_privacy.evidence.requirements.aisvs_attack_accuracy import AttackAccuracy
from ldm_privacy.evidence.requirements.edpb_membership import Membership
from ldm_privacy.evidence.requirements.requirement import Case
from ldm_privacy.types import AuditKey, Intervals

SIZES = (250, 500, 1000, 2500)


def case(generator: np.random.Generator, size: int, shift: float, num_attacks: int) -> Case:
    """One audit of `size` members and as many held-out images, whose members lie `shift` standard deviations higher."""
    is_member = np.arange(2 * size) < size
    half = torch.from_numpy(generator.permutation(2 * size) % 2 == 0)
    keys = [AuditKey(f"attack{number}", "all") for number in range(num_attacks)]
    scores = {each: torch.from_numpy(generator.normal(size=(1, 1, 2 * size)) + shift * is_member) for each in keys}
    data = AuditScores(
        torch.arange(2 * size),
        torch.from_numpy(is_member),
        half,
        None,
        {each.attack: [0] for each in keys},
        {key: each.expand(2, -1, -1) for key, each in scores.items()},
        dict.fromkeys(keys, 1.0),
    )
    report = report_of(data, intervals=Intervals(num_bootstrap=200))
    return Case(cast(Evidence, SimpleNamespace(report=report, key=keys[0], findings={})))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-audits", type=int, default=100)
    parser.add_argument("--num-attacks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, started = np.random.default_rng(options.seed), time.monotonic()
    table = Table(
        "requirement", "truth", "a side", *DECISIONS, title=f"{options.num_audits} audits, {options.num_attacks} attacks"
    )
    for truth in (0.5, 0.55, 0.7):
        shift = 2**0.5 * float(stats.norm.ppf(truth))
        for size in SIZES:
            cases = [case(generator, size, shift, options.num_attacks) for _ in range(options.num_audits)]
            for requirement in (AttackAccuracy(), Membership()):
                found = [requirement.answer(each).decision for each in cases]
                shares = [f"{found.count(each) / len(found):.2f}" for each in DECISIONS]
                table.add_row(requirement.reference, f"{truth:g}", f"{size:,}", *shares)
    Console().print(table)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
