"""The table of audited samples: rows, devices, processes, halves, rankings."""

from dataclasses import replace

import pytest
import torch

from ldm_privacy.audit import samples as samples_module
from ldm_privacy.audit.samples import AuditedSamples, check_halves, is_calibration
from ldm_privacy.data.draw import draw_split
from ldm_privacy.errors import UserError
from ldm_privacy.geometry.masks import KeepAll, KeepLowestInfluence, KeepTopDeviation
from tests.two_processes import in_two_processes

COLUMNS = (
    *("latent", "is_member", "sample_index", "group", "is_calibration"),
    *("influence", "distortion", "reconstruction_error", "complexity"),
)


@pytest.fixture
def whole():
    """Ten samples with everything that can be known of them."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(10, 2, 3, 3, generator=generator)
    index = torch.tensor([3, 5, 8, 13, 21, 34, 55, 89, 144, 233])
    condition = {"class_labels": torch.arange(10), "encoder_hidden_states": torch.randn(10, 4, 5, generator=generator)}
    return AuditedSamples(
        latent,
        torch.arange(10) % 3 > 0,
        index,
        group=torch.arange(10) // 2,
        condition=condition,
        influence=latent.square(),
        distortion=torch.arange(10.0).double().masked_fill(torch.arange(10) == 4, torch.nan),
        reconstruction_error=torch.rand(10, generator=generator),
        complexity=torch.rand(10, generator=generator).double(),
        mask_stability=0.75,
    )


def same(one, other):
    for name in COLUMNS:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)
    assert one.condition.keys() == other.condition.keys()
    assert all(torch.equal(one.condition[name], value) for name, value in other.condition.items())
    return True


@pytest.mark.parametrize("rows", [slice(2, 7), torch.tensor([0, 4, 9]), torch.arange(10) % 2 == 1])
def test_rows_take_every_column_and_keep_what_all_share(whole, rows):
    part = whole.rows(rows)
    assert len(part) == len(whole.sample_index[rows])
    for name in COLUMNS:
        torch.testing.assert_close(getattr(part, name), getattr(whole, name)[rows], rtol=0, atol=0, equal_nan=True)
    for name, value in whole.condition.items():
        assert torch.equal(part.condition[name], value[rows])
    assert part.deviation is whole.deviation
    assert part.mask_stability == 0.75


def test_columns_that_do_not_fit_or_stand_in_another_order_are_refused(whole):
    with pytest.raises(ValueError, match="3 rows of influence for 10 latents"):
        replace(whole, influence=whole.influence[:3])
    with pytest.raises(ValueError, match="9 rows of class_labels for 10 latents"):
        replace(whole, condition={"class_labels": torch.arange(9)})
    swapped = whole.sample_index[[0, 1, 2, 3, 4, 5, 6, 8, 7, 9]]
    for index in (whole.sample_index.flip(0), whole.sample_index.clamp_min(5), whole.sample_index.clamp_max(90), swapped):
        with pytest.raises(ValueError, match="sample_index must be ascending, each sample once"):
            replace(whole, sample_index=index)
    with pytest.raises(ValueError, match="ascending"):
        whole.rows(torch.tensor([4, 0]))


def test_all_columns_move_to_a_device_together(whole):
    moved = whole.to("meta")
    assert {getattr(moved, name).device.type for name in COLUMNS} == {"meta"}
    assert {value.device.type for value in moved.condition.values()} == {"meta"}
    assert same(whole.to("cpu"), whole)


def test_what_is_left_out_has_a_default():
    latent = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    is_member = torch.arange(8) < 4
    plain = AuditedSamples(latent, is_member)
    assert plain.sample_index.tolist() == list(range(8))
    assert torch.equal(plain.is_calibration, is_calibration(torch.arange(8)))
    torch.testing.assert_close(plain.deviation, latent.double().std(0, correction=0))
    group = torch.arange(8) // 4
    grouped = AuditedSamples(latent, is_member, group=group)
    assert torch.equal(grouped.is_calibration, is_calibration(plain.sample_index, group=group))
    assert (plain.group, plain.influence, plain.condition) == (None, None, {})


def test_rankings_and_the_masks_that_use_them(whole):
    assert whole.ranking("influence") is whole.influence
    assert whole.ranking("latent") is whole.latent
    assert torch.equal(whole.ranking("deviation"), whole.deviation.expand(10, 2, 3, 3))
    assert torch.equal(whole.keep(KeepLowestInfluence(0.5)), KeepLowestInfluence(0.5)(whole.influence, whole.sample_index))
    blind = replace(whole, influence=None)
    assert blind.keep(KeepAll()).all()
    deviation = blind.keep(KeepTopDeviation(0.5))
    assert (deviation == deviation[:1]).all()
    assert deviation[0].sum() == 9
    with pytest.raises(UserError, match="these samples have no influence") as caught:
        blind.keep(KeepLowestInfluence(0.5))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="not 'size'"):
        whole.ranking("size")


@pytest.mark.parametrize(
    ("answer", "found"),
    [(torch.ones(10, 2, 3, 3), r"torch.float32 \(10, 2, 3, 3\)"), (torch.ones(10, 2, 3) > 0, r"torch.bool \(10, 2, 3\)")],
)
def test_what_is_no_mask_is_not_taken_and_is_told_to_be_the_rules_own(whole, answer, found):
    class Rule(KeepAll):
        def __call__(self, ranking, sample_index):
            return answer

    rule = Rule()
    with pytest.raises(ValueError, match=rf"^mask: it returns {found}, not a torch.bool tensor") as caught:
        whole.keep(rule)
    assert caught.value.blamed_on is rule


def test_only_shares_are_summed_over_processes(whole, monkeypatch):
    def refused(value):
        raise AssertionError("the other processes aren't asked for what each has by itself")

    monkeypatch.setattr(samples_module, "total", refused)
    replace(whole, deviation=None)
    with pytest.raises(AssertionError):
        replace(whole, deviation=None, is_share=True)


def test_halves_need_two_of_each_side(whole):
    halves = replace(whole, is_member=torch.arange(10) < 5, is_calibration=torch.arange(10) % 2 == 0, group=None)
    halves.check_halves()
    with pytest.raises(UserError, match="a half of the audit has fewer than two members"):
        replace(halves, is_calibration=torch.arange(10) != 7).check_halves()
    with pytest.raises(UserError, match="a half of the audit has fewer than two held-out samples"):
        replace(halves, is_calibration=torch.arange(10) < 6).check_halves()


def test_halves_need_two_groups_of_each_side(whole):
    side = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    halves = {"is_calibration": side.repeat(2) % 2 == 0, "is_member": torch.arange(16) < 8}
    check_halves(**halves, group=torch.cat([side, side + 4]))
    few = torch.where(side == 3, 1, side)
    with pytest.raises(UserError, match="a half of the audit has fewer than two groups of members"):
        check_halves(**halves, group=torch.cat([few, side + 4]))
    with pytest.raises(UserError, match="a half of the audit has fewer than two groups of held-out samples"):
        check_halves(**halves, group=torch.cat([side, few + 4]))
    with pytest.raises(UserError, match="a half of the audit has fewer than two groups of members"):
        AuditedSamples(torch.zeros(16, 1, 1, 1), **halves, group=torch.cat([few, side + 4])).check_halves()


@pytest.mark.parametrize("cut", [6, 10])
def test_shares_have_the_deviation_of_all_and_gather_to_the_table_of_one_process(whole, monkeypatch, cut):
    halves = [whole.rows(slice(0, cut)), whole.rows(slice(cut, 10))]  # the second of them may be empty

    def share(rank):
        mine = replace(halves[rank], deviation=None, is_share=True)
        everywhere = mine.gathered(everywhere=True)
        assert same(everywhere, whole)
        assert not everywhere.is_share
        return mine, mine.gathered()

    (first, gathered), (second, kept) = in_two_processes(monkeypatch, share, samples_module)
    for mine in (first, second):
        torch.testing.assert_close(mine.deviation, whole.deviation, rtol=1e-12, atol=0)
    assert same(gathered, whole)
    assert not gathered.is_share
    assert same(kept, halves[1])
    assert kept.is_share


def test_samples_that_every_process_has_are_shared_out_and_shares_stay(whole, monkeypatch):
    def run(rank):
        mine = whole.here(None)
        assert mine.here(None) is mine  # a share is not shared out again
        assert mine.here(torch.device("cpu")) is mine
        assert mine.here(torch.device("meta")).latent.device.type == "meta"
        assert same(whole.gathered(), whole)  # what every process has is not joined
        return mine, mine.all_conditions(), whole.all_conditions()

    found = in_two_processes(monkeypatch, run, samples_module)
    for rank, (mine, conditions, alone) in enumerate(found):
        assert same(mine, whole.rows(slice(5 * rank, 5 * rank + 5)))
        assert mine.is_share
        assert mine.deviation is whole.deviation
        expected = whole.condition if rank == 0 else mine.condition
        assert all(torch.equal(conditions[name], value) for name, value in expected.items())
        assert alone.keys() == conditions.keys() == whole.condition.keys()
        assert all(alone[name] is value for name, value in whole.condition.items())


def test_one_process_has_all_samples_itself(whole):
    assert whole.here(None) is whole
    assert whole.here(torch.device("cpu")) is whole
    assert whole.here(torch.device("meta")).latent.device.type == "meta"
    assert not whole.share().is_share
    assert same(whole.share(), whole)
    assert whole.all_conditions() == whole.condition
    assert same(replace(whole, is_share=False).gathered(), whole)
    assert whole.gathered().is_share is False


def test_a_column_is_set_and_the_others_stay(whole):
    other = whole.with_columns(influence=None, mask_stability=0.5)
    assert (other.influence, other.mask_stability) == (None, 0.5)
    assert same(other.with_columns(influence=whole.influence), whole)


def test_a_rule_that_says_nothing_ranks_by_influence(whole):
    seen = []

    def rule(ranking, sample_index):
        seen.append((ranking, sample_index))
        return torch.ones_like(ranking, dtype=torch.bool)

    rule.keep_fraction = 1.0
    whole.keep(rule)
    assert seen[0][0] is whole.influence
    assert seen[0][1] is whole.sample_index


def test_gathering_alone_is_the_table_itself(whole):
    alone = replace(whole, is_share=True).gathered()
    assert same(alone, whole)
    assert not alone.is_share


def test_guidance_is_against_one_row_of_the_null_condition(whole):
    assert whole.null_row(None) == {}
    with pytest.raises(UserError, match="there is no 'null' condition"):
        whole.null_row(1.5)
    null = {name: -value for name, value in whole.condition.items()}
    told = replace(whole, views={"shuffled": whole.condition, "null": null})
    assert told.null_row(None) == {}
    row = told.null_row(1.5)
    assert row.keys() == null.keys()
    assert all(torch.equal(row[name], value[:1]) for name, value in null.items())


def test_calibration_half_is_a_fair_coin_of_the_sample_index_alone():
    index = torch.arange(40_000)
    half = is_calibration(index)
    # Five standard deviations of a binomial share.
    assert abs(half.double().mean() - 0.5) < 5 * 0.5 / 40_000**0.5
    order = torch.randperm(40_000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(is_calibration(index[order]), half[order])
    assert torch.equal(is_calibration(index[17:19]), half[17:19])
    assert is_calibration(torch.arange(16)).int().tolist() == [0, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 1, 1, 1]


def test_calibration_half_is_independent_of_membership():
    for seed in range(3):
        split = draw_split(40_000, num_members=20_000, num_heldout=20_000, seed=seed)
        shares = [is_calibration(part).double().mean() for part in (split.member_index, split.heldout_index)]
        # The difference of two shares of 20,000 has standard deviation sqrt(2) * 0.5 / sqrt(20,000).
        assert abs(shares[0] - shares[1]) < 5 * 2**0.5 * 0.5 / 20_000**0.5


def test_a_group_is_on_one_half():
    index = torch.arange(3000)
    half = is_calibration(index, group=index // 10)
    assert (half.reshape(300, 10) == half.reshape(300, 10)[:, :1]).all()
    assert 0 < half.double().mean() < 1


class OnGpu(torch.Tensor):
    """As if on a GPU: a tensor that is on the CPU can't be indexed by it."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__:
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        found = super().__torch_function__(func, types, args, kwargs)
        return found.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else found


def test_rows_may_be_named_by_an_index_on_a_gpu_where_some_columns_are_not(whole):
    for chosen in (whole.is_member, torch.tensor([2, 4])):
        with pytest.raises(RuntimeError, match="same device"):
            whole.sample_index[chosen.as_subclass(OnGpu)]
        assert same(whole.rows(chosen.as_subclass(OnGpu)), whole.rows(chosen))
