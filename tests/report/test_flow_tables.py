"""Of a flow, tables and files name sigma with the timestep."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from ldm_privacy.audit.report import report_of
from ldm_privacy.report.figures.attacks import auroc_by_timestep_figure
from ldm_privacy.report.tables import print_audit
from tests.evidence.synthetic import QUICK, make_scores

SIGMAS = {99: 0.1, 299: 0.3, 399: 0.4}


@pytest.mark.parametrize("is_flow", [True, False])
def test_the_table_of_the_terminal_says_sigma(is_flow):
    scores = make_scores(24, 24, timesteps=tuple(SIGMAS), num_folds=2)
    report = report_of(replace(scores, sigmas=SIGMAS if is_flow else {}), intervals=QUICK, target_fprs=(0.01,))
    out = StringIO()
    print_audit(report, Console(file=out, width=120), title="a flow")
    head = next(line.split() for line in out.getvalue().splitlines() if "oracle" in line)
    assert ("sigma" in head, "t" in head) == (is_flow, not is_flow)
    row = report.rows[0]
    shown = next(line for line in out.getvalue().splitlines() if line.split()[:1] == [str(row.key)])
    chosen = [f"{SIGMAS[each]:g}"[1:] if is_flow else str(each) for each in dict.fromkeys(row.timesteps)]
    assert ",".join(chosen) in shown.split()


@pytest.mark.parametrize("is_flow", [True, False])
def test_curves_over_timesteps_are_over_sigma(is_flow):
    scores = make_scores(24, 24, timesteps=tuple(SIGMAS), num_folds=2)
    report = report_of(replace(scores, sigmas=SIGMAS if is_flow else {}), intervals=QUICK, target_fprs=(0.01,))
    axis = auroc_by_timestep_figure(report).axes[0]
    assert axis.get_xlabel().startswith("sigma" if is_flow else "timestep")
    places = [SIGMAS[each] if is_flow else each for each in SIGMAS]
    assert list(axis.lines[0].get_xdata()) == places
    rings = {float(line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1}
    assert rings <= {float(place) for place in places}
    assert rings
