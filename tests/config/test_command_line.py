"""The command line."""

import io

import pytest
from rich.console import Console

from ldm_privacy.config.command_line import allow_only, first_sentence, parse, print_help
from ldm_privacy.errors import UserError


def test_words_options_and_overrides_are_told_apart():
    line = parse(["--config", "digits.yaml", "a.b=1", "resume=runs/x", "--help"], words=("resume",))
    assert (line.config, line.help, line.words, line.overrides) == ("digits.yaml", True, {"resume": "runs/x"}, ["a.b=1"])
    assert parse(["--config=digits.yaml"], words=()).config == "digits.yaml"


def test_a_program_with_options_takes_its_file_bare():
    options = {"--workers": True, "--status": False}
    line = parse(["a.yaml", "--workers", "2", "--status", "x=1"], words=(), options=options)
    assert (line.config, line.options, line.overrides) == ("a.yaml", {"--workers": "2", "--status": ""}, ["x=1"])
    assert parse(["--workers=3"], words=(), options=options).options == {"--workers": "3"}
    with pytest.raises(UserError, match=r"'--config': unknown option"):
        parse(["--config", "a.yaml"], words=(), options=options)
    with pytest.raises(UserError, match="--workers: give it a value"):
        parse(["--workers"], words=(), options=options)
    with pytest.raises(UserError, match=r"'b\.yaml': expected key=value"):
        parse(["a.yaml", "b.yaml"], words=(), options=options)


def test_unknown_options_are_named():
    with pytest.raises(UserError, match=r"'--confg': unknown option. Did you mean '--config'\?"):
        parse(["--confg", "digits.yaml"], words=())


def test_config_without_a_name_lists_the_configs():
    with pytest.raises(UserError, match=r"name a config. In configs/: .*digits.yaml"):
        parse(["--config"], words=())


def test_a_flag_is_true_or_false():
    assert parse(["dry_run=true"], words=("dry_run",)).flag("dry_run")
    assert not parse([], words=("dry_run",)).flag("dry_run")
    with pytest.raises(UserError, match="dry_run: 'ja' is neither true nor false"):
        parse(["dry_run=ja"], words=("dry_run",)).flag("dry_run")


def test_overrides_outside_the_allowed_sections_are_refused():
    allow_only(["audit.memory_gib=3"], ("audit.", "trainer."), "why")
    with pytest.raises(UserError, match=r"'data.num_members' can't be changed here: why. Allowed: audit\.\*, trainer\.\*"):
        allow_only(["data.num_members=3"], ("audit.", "trainer."), "why")


def test_help_lists_configs_keys_and_registered_names():
    text = io.StringIO()
    print_help("usage", Console(file=text, width=200))
    configs = ("digits.yaml", "cifar10.yaml")
    names = ("sima", "unet", "identity", "labels", "per_channel", "loss_gap", "l1", "probe")
    for expected in (*configs, "trainer.max_epochs", "audit.onset.num_consecutive", "loggers", *names):
        assert expected in text.getvalue()


def test_what_a_config_is_takes_the_whole_of_its_first_sentence():
    head = "# Digits under DP-SGD, offline, on a\n# CPU (pip install x). 1.8 GiB.\n# python train.py --config d.yaml\na: 1\n"
    assert first_sentence(head) == "Digits under DP-SGD, offline, on a CPU (pip install x)."
    assert first_sentence("# A sweep of two\n# ldm-privacy sweep a.yaml\n") == "A sweep of two"
