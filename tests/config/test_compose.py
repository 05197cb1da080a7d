"""Entry files, groups, overrides and their mistakes."""

import pytest

from ldm_privacy.config import Config, TargetConfig, compose, finish
from ldm_privacy.config.compose import FOR_TARGETS, entry_files, merge, parse_overrides, read_entry
from ldm_privacy.errors import UserError
from ldm_privacy.registry import ATTACKS


def test_the_command_line_wins_over_the_entry_and_the_entry_over_its_groups(tmp_path):
    entry = tmp_path / "mine.yaml"
    entry.write_text(
        "defaults: [data/digits, autoencoder/digits, denoiser/digits, geometry/default, audit/default, trainer/default]\n"
        "data: {num_members: 100}\ntrainer: {max_epochs: 7}\n"
    )
    config = compose(str(entry), ["data.num_heldout=50", "trainer.max_epochs=9"]).config
    assert config.name == "mine"
    assert (config.data.num_members, config.data.num_heldout, config.data.resolution) == (100, 50, 8)
    assert config.trainer.max_epochs == 9


def test_what_is_written_beside_the_run_composes_to_the_same_config():
    composed = compose("digits.yaml", ["audit.attacks.loss.power=4", "data.source.class=digits"])
    assert finish(composed.tree, Config).config == composed.config


def test_changing_a_class_drops_the_old_classes_arguments():
    composed = compose("cifar10.yaml", ["data.source.class=parquet", "data.source.files=x.parquet"])
    assert composed.config.data.source.arguments == {"files": "x.parquet"}


def test_a_number_that_is_quoted_is_a_name():
    assert compose("digits.yaml", ['name="3"']).config.name == "3"


def test_merge_keeps_arguments_while_the_class_stays():
    assert merge({"a": {"class": "x", "k": 1}}, {"a": {"l": 2}}) == {"a": {"class": "x", "k": 1, "l": 2}}


def test_null_takes_a_component_out_and_a_list_names_them():
    assert list(compose("digits.yaml", ["audit.attacks.loss=null"]).config.audit.attacks) == ["sima", "pia"]
    assert list(compose("digits.yaml", ["audit.attacks=[loss]"]).config.audit.attacks) == ["loss"]
    assert set(compose("digits.yaml", ["watch.generations=null"]).config.watch) == {"loss_gap", "samples", "quality"}
    assert list(compose("digits.yaml", ["autoencoder.losses.kl=null"]).config.autoencoder.losses) == ["reconstruction"]


def test_a_component_can_be_named_alone():
    assert compose("digits.yaml", ["denoiser.channel_map=none"]).config.denoiser.channel_map.name == "none"
    assert compose("digits.yaml", ["denoiser.condition=labels"]).config.denoiser.condition.arguments == {}


@pytest.mark.parametrize("path", entry_files(), ids=lambda path: path.name)
def test_every_entry_file_is_valid_and_begins_with_its_command(path):
    if path.name == FOR_TARGETS:
        read_entry(str(path), schema=TargetConfig, is_whole=False)
    else:
        compose(str(path))
    head = [line for line in path.read_text().splitlines() if line.startswith("# python ")]
    assert any(f"--config {path.name}" in line for line in head)


@pytest.mark.parametrize("path", entry_files(), ids=lambda path: path.name)
def test_what_needs_a_gpu_says_how_it_is_tried_on_any_machine(path):
    head = path.read_text().partition("\ndefaults:")[0]
    _, _, small = head.partition("A small try on any machine:")
    assert ("for a GPU" in head or "for GPUs" in head) <= bool(small)
    if small:
        compose(str(path), [word for word in small.split() if "=" in word])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.source.path=scans",
            "data.source.path: 'digits' takes no such key; it belongs to folder, imagenet, saved. Name the class, as in",
        ),
        ("geometry.influence.num_probs=3", "geometry.influence: unknown key 'num_probs'. Did you mean 'num_probes'?"),
        ("name=3", """name: 3 should be a valid string; quote it: '"3"' on the command line, "3" in a file."""),
        ("trainer.max_epoch=3", "trainer: unknown key 'max_epoch'. Did you mean 'max_epochs'?"),
        ("denoisr.x=3", "config: unknown key 'denoisr'. Did you mean 'denoiser'?"),
        ("denoiser.network.droput=3", "denoiser.network: unknown key 'droput'. Did you mean 'dropout'?"),
        ("denoiser.network.class=unett", "denoiser.network.class: unknown denoiser 'unett'. Did you mean 'unet'?"),
        ("audit.attacks.x.class=simma", "audit.attacks.x.class: unknown attack 'simma'. Did you mean 'sima'?"),
        ("audit.attacks.loss.powr=2", "audit.attacks.loss: unknown key 'powr'. Did you mean 'power'?"),
        ("audit.masks.top60.seed=3", "audit.masks.top60: unknown key 'seed'"),
        ("audit.attacks.loss.power=x", "audit.attacks.loss.power: 'x' should be 2 or 4"),
        ("autoencoder.losses.kl.weigt=2", "autoencoder.losses.kl: unknown key 'weigt'. Did you mean 'weight'?"),
        ("autoencoder.losses.more=l3", "autoencoder.losses.more.class: unknown loss 'l3'. Did you mean 'l2'?"),
        (
            "denoiser.channel_map=per_chanel",
            "denoiser.channel_map.class: unknown channel map 'per_chanel'. Did you mean 'per_channel'?",
        ),
        ("denoiser.condition=label", "denoiser.condition.class: unknown condition 'label'. Did you mean 'labels'?"),
        ("watch.more=sample", "watch.more.class: unknown watcher 'sample'. Did you mean 'samples'?"),
        ("watch.generations.num_images=10", "watch.generations.num_images: 10 should be greater than or equal to 1000"),
        ("watch.loss_gap.seed=3", "watch.loss_gap: unknown key 'seed'"),
        ("audit.onset.nun_consecutive=3", "audit.onset: unknown key 'nun_consecutive'"),
        (
            "data.source.files=*.png",
            "data.source.files=*.png: what it gives is no YAML (while scanning an alias); a text is quoted",
        ),
        ("trainer.max_epochs=abc", "trainer.max_epochs: 'abc' should be a valid integer"),
        ("trainer.max_epochs=0", "trainer.max_epochs: 0 should be greater than 0"),
        ("data.num_members=2.5", "data.num_members: 2.5 should be a valid integer"),
        ("data.flip=perhaps", "data.flip: 'perhaps' should be a valid boolean"),
        ("audit.confidence=95", "audit.confidence: 95 should be less than or equal to 0.999999"),
        ("denoiser.learning_rate=.inf", "denoiser.learning_rate: inf should be less than or equal to 1"),
        ("trainer.gradient_clip=.inf", "trainer.gradient_clip: inf is no finite number"),
        ("audit.masks.top60.keep_fraction=.nan", "audit.masks.top60.keep_fraction: nan is no finite number"),
        ("autoencoder.losses.kl.weight=.inf", "autoencoder.losses.kl.weight: inf is no finite number"),
        ("watch.samples.every={epochs: 99999999999999999999}", "watch.samples.every: 99999999999999999999 is no finite number"),
        ("watch.samples.every.epochs=0", "watch.samples.every: 0 epochs; use 1 or more"),
        ("data=3", "data: expected keys and values, got 3"),
        ("denoiser.network=3", "denoiser.network: expected 'class: NAME'"),
        ("data.source.class=parquet", "data.source.files: missing"),
        ("plugins=[no_such_module]", "plugins: there is no module 'no_such_module' in "),
        ("name=${nowhere}", "Interpolation key 'nowhere' not found"),
    ],
)
def test_mistakes_are_named_with_the_mend(override, message):
    with pytest.raises(UserError) as caught:
        compose("digits.yaml", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_config_lists_those_there_are():
    with pytest.raises(UserError, match=r"no config 'digit.yaml'. Did you mean 'digits.yaml'\? In configs/: .*cifar10.yaml"):
        compose("digit.yaml")


def test_an_unknown_group_names_the_nearest(tmp_path):
    entry = tmp_path / "mine.yaml"
    entry.write_text("defaults: [data/digit]\n")
    with pytest.raises(UserError, match=r"no group 'data/digit'. Did you mean 'data/digits'\?"):
        compose(str(entry))


def test_defaults_go_one_level_deep(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "deep.yaml").write_text("defaults: [data/digits]\n")
    (tmp_path / "mine.yaml").write_text("defaults: [data/deep]\n")
    with pytest.raises(UserError, match="can't have defaults of its own"):
        compose(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["a: [1", "- just\n- a list", "!!python/object/apply:os.system ['true']"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml"):
        compose(str(path))


@pytest.mark.parametrize("override", ["foo", "=3", "--x=3"])
def test_an_override_without_a_key_or_value_is_named(override):
    with pytest.raises(UserError, match="expected key=value"):
        parse_overrides([override])


@pytest.mark.parametrize("pair", [["a.b=[x]", "a.b.c.d=1"], ["a=[1]", "a.b=4"]])
def test_keys_that_contradict_each_other_are_named(pair):
    with pytest.raises(UserError, match="command line"):
        compose("digits.yaml", pair)


def test_a_plugin_beside_the_user_is_imported(tmp_path, monkeypatch):
    (tmp_path / "my_attacks_for_compose.py").write_text(
        "from ldm_privacy.attacks.sima import SimA\n"
        "from ldm_privacy.registry import ATTACKS\n"
        "@ATTACKS.register('mine_for_compose')\n"
        "class Mine(SimA):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ATTACKS, "_components", dict(ATTACKS._components))
    config = compose("digits.yaml", ["plugins=[my_attacks_for_compose]", "audit.attacks.x.class=mine_for_compose"]).config
    assert type(config.audit.attacks["x"].build()).__name__ == "Mine"
