"""How often a gate passes, fails and stays undecided where the truth is known.

    python -m benchmarks.gate [--num-audits 400] [--limit 0.6] [--seed 0]

Audits of normal scores at two timesteps that share nothing and know equally much, so that each half's choice for the other is
luck and the truth is the same whatever is chosen: the hardest case for the interval. Nominal: a truth at the limit passes in at
most 2.5 % of the audits. Beside it the share of copies, whose bound is exact.
"""

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from ldm_privacy.audit.report import report_of
from ldm_privacy.audit.scores import AuditScores
from ldm_privacy.evidence.gate import Gate
from ldm_privacy.evidence.limits.auroc import AurocLimit
from ldm_privacy.evidence.limits.limit import DECISIONS, Decision, Found, decide
from ldm_privacy.evidence.limits.tpr import TprLimit
from ldm_privacy.metrics import clopper_pearson
from ldm_privacy.types import AuditKey, Intervals

SIZES = ((129, 124), (360, 360), (700, 700), (2500, 2500))
KEY = AuditKey("simulated", "all")
TIMESTEPS = [0, 1]


def audit(generator: np.random.Generator, num_members: int, num_heldout: int, shift: float) -> Found:
    """One audit of scores whose members lie `shift` standard deviations higher."""
    count = num_members + num_heldout
    is_member = np.arange(count) < num_members
    score = generator.normal(size=(1, len(TIMESTEPS), count)) + shift * is_member
    half = torch.from_numpy(generator.permutation(count) % 2 == 0)
    labels = torch.from_numpy(is_member)
    scores = {KEY: torch.from_numpy(score).expand(2, -1, -1)}
    data = AuditScores(torch.arange(count), labels, half, None, {KEY.attack: TIMESTEPS}, scores, {KEY: 1.0})
    return Found(report_of(data, intervals=Intervals(num_bootstrap=200)), KEY)


def add_row(table: Table, what: str, truth: float, size: str, decisions: list[Decision]) -> None:
    """Shares of the three decisions."""
    shares = [f"{decisions.count(each) / len(decisions):.3f}" for each in DECISIONS]
    table.add_row(what, f"{truth:.3f}", size, *shares)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-audits", type=int, default=400)
    parser.add_argument("--limit", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator, started, most = np.random.default_rng(options.seed), time.monotonic(), options.limit
    table = Table("limit", "truth", "samples", *DECISIONS, title=f"{options.num_audits} audits each")
    for truth in (0.5, (0.5 + most) / 2, most):
        shift = 2**0.5 * float(stats.norm.ppf(truth))
        tpr = float(stats.norm.sf(stats.norm.isf(0.01) - shift))
        for members, heldout in SIZES:
            gate = Gate([AurocLimit(most), TprLimit(max(tpr, 0.011), target_fpr=0.01)])
            ruled = [gate.rule(audit(generator, members, heldout, shift)) for _ in range(options.num_audits)]
            areas, rates = zip(*([each.decision for each in ruling.judgements] for ruling in ruled))
            add_row(table, f"auroc {most:g}", truth, f"{members} + {heldout}", list(areas))
            if truth == most:
                add_row(table, f"tpr {tpr:.3f}", tpr, f"{members} + {heldout}", list(rates))
    for share in (0.0, 0.005, 0.01):
        copies = generator.binomial(1000, share, size=options.num_audits)
        decisions = [decide(clopper_pearson(int(each), 1000), 0.01) for each in copies]
        add_row(table, "copies 0.01", share, "1,000", decisions)
    Console().print(table)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
