"""What the processes that are not the main one know of an audit."""

from types import SimpleNamespace

import callbacks.audit
from callbacks.audit import MemorizationAudit
from ldm_privacy.audit import AuditNews
from ldm_privacy.onset import OnsetDetector, Rise
from ldm_privacy.types import AuditKey, Estimate


def test_another_process_learns_the_news_and_holds_no_report(monkeypatch):
    news = iter(
        [
            AuditNews(Estimate(0.5, 0.4, 0.6), 40, None),
            AuditNews(Estimate(0.7, 0.6, 0.8), 40, Rise(1, 1, 0.97, 0.2, 0.1, None)),
            AuditNews(Estimate(0.7, 0.6, 0.8), 40, Rise(2, 2, 0.99, 0.2, -0.1, 1)),
        ]
    )
    monkeypatch.setattr(callbacks.audit, "gather_on_main", lambda shard: [shard])
    monkeypatch.setattr(callbacks.audit, "on_main", lambda function: next(news))
    audit = SimpleNamespace(collected=lambda: "its own share")
    callback = MemorizationAudit(audit, 1, OnsetDetector(), AuditKey("sima", "all"), on_report=None)
    trainer = SimpleNamespace(sanity_checking=True)
    module = SimpleNamespace(trainer=trainer, current_epoch=0)
    before_onset = []
    for epoch in range(3):
        trainer.sanity_checking, module.current_epoch = epoch == 0, max(0, epoch - 1)
        callback.on_validation_epoch_end(trainer, module)
        assert (callback.audited_epoch, callback.report) == (epoch, None)
        before_onset.append(callback.is_before_onset())
    # A rise that is certain now, or one that was and gave the onset, though this audit's lower bound is below 0 again.
    assert before_onset == [True, False, False]
