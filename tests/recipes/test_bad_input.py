"""Mistakes at the command line: one line that names what is wrong, exit code 2, no traceback, nothing made."""

import pytest

from ldm_privacy.errors import UserError
from ldm_privacy.recipes import cli
from tests.tiny import DISTORTION, PIXELS, arguments

QUALITY = "watch.quality.class=quality"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.num_members=5000", r"5000.*1797|1797.*5000"),
        ("data.resolution=7", r"data.resolution: 7 can't be halved"),
        ("data.num_members=null", r"data.num_members: missing"),
        (
            "denoiser.condition=captions",
            r"^denoiser\.network: 'unet' .* no argument 'cross_attention_dim'\. Those that have it: pretrained, unet_cond",
        ),
        (
            "denoiser.network.class=unet_condition",
            r"^denoiser\.network: 'unet_condition' attends to captions: set denoiser\.cond",
        ),
        (
            "denoiser.network.class=unet_condition denoiser.condition=labels",
            r"^denoiser\.network: 'unet_condition' attends to captions: set denoiser\.condition=captions",
        ),
        (
            "denoiser.network.class=dit denoiser.condition=captions",
            r"^denoiser\.network: 'dit' takes no such condition: .*unet_cond",
        ),
        (
            "denoiser.network.class=dit denoiser.network.patch_size=3",
            r"^denoiser\.network\.patch_size: 3 doesn't divide .*, 4\.$",
        ),
        ("denoiser.condition.class=captions denoiser.condition.max_tokens=2", r"^denoiser\.condition\.max_tokens: 2 should be"),
        (
            "denoiser.condition.class=captions denoiser.condition.encoder=nowhere",
            r"^denoiser\.condition\.encoder: no text encoder could be loaded from 'nowhere' \(.*Name tiny, or a local folder",
        ),
        (
            "denoiser.condition.class=labels denoiser.condition.seed=1",
            r"^denoiser\.condition\.seed: 'labels' takes no such key",
        ),
        ("autoencoder.network.norm_num_groups=3", r"autoencoder.network.block_out_channels: 8 is not a multiple"),
        ("denoiser.network.block_out_channels=[8,8,8,8]", r"denoiser.network.block_out_channels: .* halves the latent"),
        ("audit.timesteps=[1000]", r"audit.timesteps: 1000 is outside the noise schedule, 0 to 999"),
        ("audit.onset.attack=combined", r"audit.onset.attack: 'combined' is not in audit.attacks"),
        ("geometry.distortion_rank=100", r"geometry.distortion_rank: 100 singular values, but a latent has 64 dimensions"),
        ("data.num_heldout=2", r"half of the audit has fewer than two held-out samples"),
        (
            "audit.attacks.x.class=pfami audit.attacks.x.timesteps=[5000]",
            r"^audit\.attacks\.x: timestep 5000 is outside",
        ),
        ("audit.attacks.x.class=secmi audit.timesteps=[995]", r"^audit\.attacks\.x: .*timestep 995 needs the state at 1005"),
        (
            "denoiser.schedule=flow",
            r"^denoiser\.schedule: flow with denoiser\.prediction_type=epsilon: a flow has both as flow",
        ),
        ("denoiser.prediction_type=flow", r"^denoiser\.schedule: linear with denoiser\.prediction_type=flow: a flow has both"),
        ("audit.sigmas=[0.3]", r"^audit\.sigmas: audit\.timesteps is given too; set the one that you don't mean to null\.$"),
        ("audit.sigmas=[0.3] audit.timesteps=null", r"^audit\.sigmas: they are of flows; this denoiser predicts epsilon, so"),
        ("audit.sigmas=[1.0] audit.timesteps=null", r"^audit\.sigmas: .* should be less than 1"),
        ("audit.timesteps=null", r"^audit\.timesteps: empty; name at least one timestep, or of a flow audit\.sigmas\.$"),
        ("denoiser.network.block_out_channels=[]", r"denoiser.network.block_out_channels: \[\]"),
        ("autoencoder.network.norm_num_groups=0", r"autoencoder.network.norm_num_groups: 0"),
        ("denoiser.network.layers_per_block=-1", r"denoiser.network.layers_per_block: -1"),
        ("seed=99999999999999999999999", r"seed: 9+ should be less than"),
        ("audit.timesteps=[]", r"audit.timesteps: empty"),
        ("audit.onset.attack=secmi", r"audit.onset.attack: 'secmi' is not in audit.attacks"),
        ("audit.onset.mask=top10", r"audit.onset.mask: 'top10' is not in audit.masks"),
        ("audit.masks.top60.keep_fraction=1.5", r"^audit\.masks\.top60\.keep_fraction: 1\.5 is outside"),
        # What used to be found by the first audit, after the autoencoder was trained.
        ("audit.masks.top60.keep_fraction=0.001", r"^audit\.masks\.top60\.keep_fraction: 0\.001 keeps none of 64 dimensions"),
        ("audit.keep_fractions=[0.5,0.001]", r"^audit\.keep_fractions: 0\.001 keeps none of 64 dimensions"),
        ("geometry.influence.keep_fraction=0.001", r"^geometry\.influence\.keep_fraction: 0\.001 keeps none of 64 dimensions"),
        ("audit.target_fprs=[]", r"^audit\.target_fprs: empty"),
        (
            "audit.attacks.x.class=pfami audit.attacks.x.smallest_crop=0.01",
            r"^audit\.attacks\.x: .*raise smallest_crop",
        ),
        ("audit.confidence=0.9999999999", r"^audit\.confidence: "),
        ("audit.attacks.x.class=sima_mc audit.attacks.x.num_draws=0", r"^audit\.attacks\.x: .*num_draws is 0"),
        (
            "denoiser.network.block_out_channels=[9000000,9000000]",
            r"^out of memory before anything is trained",
        ),
        ("geometry.influence.num_probes=0", r"num_probes"),
        ("audit.attacks.loss.power=3", r"power"),
        ("data.group_column=patient", r"'patient'"),
        ("data.index_file=nowhere.npz", r"nowhere\.npz"),
        ("data.split=coin data.index_file=x.npz", r"^data\.split=coin: data\.index_file=x\.npz names the members"),
        ("data.split=coin data.num_members=30", r"^data\.split=coin: data\.num_members=30 and data\.num_heldout=40, but"),
        ("data.split=coins", r"^data\.split: "),
        ("name=../up", r"name: '../up' can't be a folder's name"),
        ("loggers=[csv,tensorbord]", r"^loggers: unknown logger 'tensorbord'\. Did you mean 'tensorboard'"),
        ("watch.loss_gap.every.epochs=0", r"every: 0 epochs; use 1 or more"),
        ("watch.loss_gap.every.steps=0", r"every: 0 steps; use 1 or more"),
        ("watch.loss_gap.every.epochs=1 watch.loss_gap.every.steps=1", r"every: give either epochs or steps"),
        (f"{QUALITY} watch.quality.num_images=5", r"^watch\.quality\.num_images: 5 should be greater than or equal to 20"),
        (
            f"{QUALITY} data.num_heldout=19",
            r"^watch\.quality: 19 held-out images, and quality is told against 20 or more: .*=null",
        ),
        (f"{QUALITY} watch.quality.feature_network=nowhere", r"^watch\.quality\.feature_network: there is no folder 'nowhere'"),
        ("gate.auroc=0.7 audit.stop.at=fail watch.loss_gap=null", r"audit\.stop: .* watch\.loss_gap"),
        ("denoiser.channel_map=whitening_of", r"denoiser\.channel_map\.class: unknown channel map"),
        ("denoiser.privacy.noise_multiplier=0", r"^denoiser\.privacy\.noise_multiplier: 0 should be greater than 0"),
        (
            "denoiser.privacy.noise_multiplier=1 trainer.devices=2",
            r"^trainer\.devices: 2 doesn't .*; use trainer\.devices=1\.$",
        ),
        (
            "denoiser.privacy.noise_multiplier=1 trainer.compile=default",
            r"^trainer\.compile: default doesn't go with denoiser\.privacy; use trainer\.compile=none\.$",
        ),
        (
            "denoiser.privacy.noise_multiplier=1 trainer.precision=bf16-mixed",
            r"^trainer\.precision: bf16-mixed doesn't go with denoiser\.privacy; use trainer\.precision=32-true\.$",
        ),
        (
            "denoiser.privacy.noise_multiplier=1 data.repeats.share=0.1",
            r"^data\.repeats: a member .* use data\.repeats\.share=0",
        ),
        (
            "denoiser.privacy.noise_multiplier=1 gate.auroc=0.7 audit.stop.at=fail",
            r"^audit\.stop\.at: fail lets audits, which see the members without noise, .* use audit\.stop\.at=null\.$",
        ),
        (
            "denoiser.privacy.max_gradient_norm=2",
            r"^denoiser\.privacy\.max_gradient_norm: without noise .* set denoiser\.privacy\.noise_multiplier too",
        ),
        ("denoiser.privacy.delta=0.001", r"^denoiser\.privacy\.delta: without noise there is no DP-SGD"),
        (
            "denoiser.timestep_sampling.class=uniform denoiser.timestep_sampling.slope=2",
            r"^denoiser\.timestep_sampling\.slope: 'uniform' takes no such .* u_shaped",
        ),
        (
            "denoiser.condition.class=none denoiser.condition.noise=0.1",
            r"^denoiser\.condition\.noise: 'none' takes no such key; .* captions, labels",
        ),
        ("denoiser.condition.class=labels denoiser.condition.noise=1", r"^denoiser\.condition\.noise: 1 should be less than 1"),
        ("data.num_public=0", r"autoencoder\.train_on: 'public' needs public images"),
        ("autoencoder.losses.reconstruction=null autoencoder.losses.kl=null", r"autoencoder\.losses: name at least one loss"),
        ("audit.masks.a/b.class=all", r"audit.masks: the label 'a/b'"),
        ("audit.calibrations.a/b.class=history", r"^audit\.calibrations: the label 'a/b'"),
        ("audit.calibrations.x.class=histori", r"^audit\.calibrations\.x\.class: .* Did you mean 'history'\?"),
        ("audit.calibrations.history.inverse_penalty=0", r"^audit\.calibrations\.history\.inverse_penalty: 0\.0; .* above 0"),
        ("audit.calibrations.history.inverse_penalty=-1", r"^audit\.calibrations\.history\.inverse_penalty: -1\.0; "),
        (
            "audit.calibrations.history.inverse_penalty=.inf",
            r"^audit\.calibrations\.history\.inverse_penalty: inf is no finite",
        ),
        ("audit.calibrated=[sima]", r"^audit\.calibrated: 'sima' is no attack with a mask; write it as sima/all\."),
        ("audit.calibrated=[sima/none]", r"^audit\.calibrated: there is no 'sima/none'; name some of: sima/all, "),
        ("audit.calibrated=[sima/all,sima/all]", r"^audit\.calibrated: 'sima/all' stands there twice"),
        ("audit.calibrated=[sima_history/all]", r"^audit\.calibrated: 'sima_history/all' is calibrated already; name some of"),
        ("audit.attacks.sima_history.class=sima", r"^audit\.attacks: the label 'sima_history' is taken by a calibrated score"),
        ("audit.max_samples=8", r"^audit\.calibrations: a half of the audit has 4 members, 5 are needed .*=\[\]\.$"),
        ("audit.masks.tuned.class=all", r"'tuned' is taken"),
        (
            "audit.attacks.sima=null audit.attacks.loss=null audit.attacks.pia=null",
            r"audit\.attacks and audit\.masks: name at least one of each",
        ),
        # Pixel space: no decoder, so no influence; said before anything is made.
        (" ".join(PIXELS), r"^audit\.masks\.top60: ranks by influence, but there is none: the codec has no decoder"),
        (
            " ".join([*PIXELS, "autoencoder.max_epochs=2", "audit.masks=[all]"]),
            r"^autoencoder\.max_epochs: .* use autoencoder\.max_epochs=0",
        ),
        (
            f"{' '.join(PIXELS)} audit.masks=[all] autoencoder.losses.l=l1",
            r"^autoencoder\.losses: .* use autoencoder\.losses\.l=null",
        ),
        (
            f"{' '.join(PIXELS)} audit.masks=[all] denoiser.channel_map=per_channel",
            r"^denoiser\.channel_map: .* use .*_map=none\.$",
        ),
        (
            f"{' '.join(PIXELS)} audit.masks=[all] geometry.distortion_rank=2",
            r"^geometry\.distortion_rank: .* use .*_rank=0\.$",
        ),
    ],
)
def test_a_mistake_is_found_before_a_folder_is_made(tmp_path, override, message):
    with pytest.raises(UserError, match=message) as caught:
        cli.train(arguments(tmp_path / "runs", *override.split()))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_place_with_a_variable_in_it_is_checked_once_that_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    (tmp_path / "${oc.env:SCRATCH}").touch()  # a file of that very name is not what is meant
    with pytest.raises(UserError, match="there is no module 'nowhere'"):
        cli.train(["--config", "digits.yaml", "output_dir=${oc.env:SCRATCH}/runs", "plugins=[nowhere]"])


def test_a_missing_accelerator_is_named(tmp_path):
    with pytest.raises(UserError, match=r"trainer\.accelerator: 'mps' is not there"):
        cli.train(arguments(tmp_path, "trainer.accelerator=mps"))


def test_no_config_lists_the_configs():
    with pytest.raises(UserError, match=r"no config: name one, as in --config digits.yaml. In configs/: .*cifar10.yaml"):
        cli.train([])


def test_resuming_takes_no_config():
    for line in (["resume="], ["--config", "digits.yaml", "resume=runs/x"]):
        with pytest.raises(UserError, match="resume: name a run's folder"):
            cli.train(line)


def test_resuming_what_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"is no run: it has no config.yaml"):
        cli.train([f"resume={tmp_path}"])


def test_evaluating_nothing_is_named():
    with pytest.raises(UserError, match="ckpt: name a checkpoint"):
        cli.evaluate([])


def test_a_data_set_that_is_not_there_offline_says_how_to_name_a_copy(tmp_path):
    overrides = ["data.source.class=hub", "data.source.repo_id=nobody/nothing"]
    with pytest.raises(UserError, match=r"nobody/nothing.*parquet"):
        cli.train(arguments(tmp_path, *overrides))


def test_the_plan_is_printed_and_nothing_is_made(tmp_path, capsys):
    assert cli.train(arguments(tmp_path / "runs", "dry_run=true", DISTORTION, "geometry.distortion_max_samples=50")) == 0
    output = capsys.readouterr().out
    for expected in (
        "num_members: 40",
        "40 members, 40 held-out, 64 public",
        "parameters",
        "audits of 80 samples",
        "distortion of 80 samples",
    ):
        assert expected in output
    assert not (tmp_path / "runs").exists()


def test_weights_that_an_autoencoder_lacks_are_found_by_the_plan(tmp_path):
    from safetensors.torch import load_file, save_file

    from ldm_privacy.models.kl import KLCodec

    KLCodec.build(image_channels=1, resolution=8, block_out_channels=[8], norm_num_groups=4).save(tmp_path / "vae")
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["decoder.conv_out.bias"]
    save_file(weights, file)
    pretrained = [
        "autoencoder.network.class=pretrained",
        f"autoencoder.network.path={tmp_path}/vae",
        "autoencoder.max_epochs=0",
    ]
    with pytest.raises(
        UserError, match=r"^autoencoder\.network\.path: .*1 weights are missing, the first 'decoder\.conv_out\.bias'"
    ):
        cli.train(arguments(tmp_path / "runs", *pretrained, "dry_run=true"))


@pytest.mark.parametrize("key", ["data.repeats.share=0.5", "data.num_members=5"])
def test_an_evaluation_keeps_who_was_trained_on_and_how_often(key):
    with pytest.raises(UserError, match="can't be changed here: the checkpoint brings its own networks and split"):
        cli.evaluate(["ckpt=x.ckpt", key])


def test_an_evaluation_may_look_otherwise():
    with pytest.raises(UserError, match=r"x.ckpt: does not exist"):
        cli.evaluate(["ckpt=x.ckpt", "watch.trajectories.num_captions=50"])
