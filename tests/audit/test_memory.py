"""What an audit holds: one copy of its sums while it collects, and none of them once they are scores."""

import gc
import weakref

import pytest
import torch

from ldm_privacy.attacks.base import get_attack
from ldm_privacy.audit import audit as audit_module
from ldm_privacy.audit import passes as passes_module
from ldm_privacy.audit.audit import Audit
from ldm_privacy.audit.samples import AuditedSamples
from ldm_privacy.device import OutOfMemory
from ldm_privacy.geometry.masks import KeepAll, KeepTopInfluence
from ldm_privacy.types import Intervals
from tests.reference.predictors import Memoriser

NUM_SAMPLES, NUM_MASKS, TIMESTEPS, KEEP_FRACTIONS = 120, 2, [0, 50, 100], (0.25, 0.5, 1.0)


@pytest.fixture
def audit():
    latent = torch.randn(NUM_SAMPLES, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    samples = AuditedSamples(latent, torch.arange(NUM_SAMPLES) % 2 == 0, influence=latent.square())
    attacks = {"sima": get_attack("sima"), "loss": get_attack("loss")}
    masks = {"all": KeepAll(), "top60": KeepTopInfluence(0.6)}
    return Audit(samples, attacks, masks, TIMESTEPS, keep_fractions=KEEP_FRACTIONS, intervals=Intervals(num_bootstrap=10))


def bytes_of_tensors() -> int:
    """Of all tensors that are alive, each storage once."""
    gc.collect()
    storages = [each.untyped_storage() for each in gc.get_objects() if type(each) is torch.Tensor]  # no fake ones of a compiler
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def test_while_it_collects_an_audit_holds_one_copy_of_its_sums_and_one_batch(audit, monkeypatch):
    monkeypatch.setattr(passes_module, "SAMPLES_AT_ONCE", NUM_SAMPLES // 4)
    predictor, held = Memoriser(audit.samples.latent[audit.samples.is_member]), []
    before = bytes_of_tensors()
    audit.collect(predictor, lambda done: held.append(bytes_of_tensors() - before))
    # float64 for each mask, float32 for each of the three rankings at each keep fraction
    per_sample = 2 * len(TIMESTEPS) * (8 * NUM_MASKS + 4 * 3 * len(KEEP_FRACTIONS))
    of_a_batch = 2 * len(TIMESTEPS) * 8 * (NUM_MASKS + 3 * len(KEEP_FRACTIONS))
    assert len(held) == 4
    assert held[-1] <= NUM_SAMPLES * per_sample + NUM_SAMPLES // 4 * of_a_batch


def test_sums_are_gone_when_the_report_is_made_and_scores_are_held_once(audit, monkeypatch):
    report_of, collect, alive = audit_module.report_of, audit_module.collect, []

    def collected(*arguments, **options):
        found = collect(*arguments, **options)
        alive.extend(weakref.ref(term) for terms in (*found.sums.values(), *found.sweeps.values()) for term in terms)
        return found

    def reported(data, **options):
        assert len(alive) == 4
        assert not any(each() is not None for each in alive)
        return report_of(data, **options)

    monkeypatch.setattr(audit_module, "collect", collected)
    monkeypatch.setattr(audit_module, "report_of", reported)
    data = audit(Memoriser(audit.samples.latent[audit.samples.is_member])).data
    storages = [each.untyped_storage() for sweep in data.sweeps.values() for each in sweep.values()]
    assert sum(each.nbytes() for each in storages) == 2 * 9 * len(TIMESTEPS) * NUM_SAMPLES * 4


def test_a_predictor_that_runs_out_of_memory_ends_an_audit_with_an_error_that_says_so(audit):
    class Hungry(Memoriser):
        def __call__(self, noisy_latent, timestep, condition):
            raise torch.OutOfMemoryError

    with pytest.raises(OutOfMemory):
        audit.collect(Hungry(audit.samples.latent))
