"""A config refuses what cannot be run, survives JSON, and names a run by what is unusual in it."""

import math

import pytest

from experiments.config import Config, Runtime
from experiments.configs import PRESETS
from experiments.methods.grda import Settings

from .conftest import exactly


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Config(epochs=0), "epochs must be an integer >= 1, got 0."),
        (lambda: Config(batch_size=1.5), "batch_size must be an integer >= 1, got 1.5."),
        (lambda: Config(seed=-1), "seed must be an integer >= 0, got -1."),
        (
            lambda: Config(learning_rate=math.nan),
            "learning_rate must be a finite number >= 0, got nan.",
        ),
        (
            lambda: Config(learning_rate=-0.1),
            "learning_rate must be a finite number >= 0, got -0.1.",
        ),
        (lambda: Config(momentum=1.0), "momentum must be below 1, got 1.0."),
        (
            lambda: Config(weight_decay=math.inf),
            "weight_decay must be a finite number >= 0, got inf.",
        ),
        (
            lambda: Config(dataset="cifar"),
            "dataset must be one of digits, fashion_mnist, cifar10, cifar100, imagenet2012, "
            "generated_cifar10, generated_cifar100, generated_imagenet2012, python_text, "
            "got 'cifar'.",
        ),
        (
            lambda: Config(model="vgg"),
            "model must be one of mlp, small_cnn, small_cnn_quarter, small_cnn_sixteenth, lenet5, "
            "vgg16, vgg16_bn, wrn_28_10, resnet50, char_transformer, got 'vgg'.",
        ),
        (lambda: Config(method=()), "method must be at least one method, got ()."),
        (
            lambda: Config(method=("dense", "dense")),
            "method must be each method once, got ('dense', 'dense').",
        ),
        (lambda: Config(grda=Settings(c=-1)), "grda.c must be a finite number >= 0, got -1."),
        (lambda: Config(grda=Settings(mu=0)), "grda.mu must be in (0, 1], got 0."),
        (lambda: Config(grda=Settings(mu=1.5)), "grda.mu must be in (0, 1], got 1.5."),
        (
            lambda: Config(clip_norm=0.0),
            "clip_norm must be above 0, got 0.0.",
        ),
        (
            lambda: Config(label_smoothing=1.0),
            "label_smoothing must be below 1, got 1.0.",
        ),
        (
            lambda: Config(warmup_epochs=-1),
            "warmup_epochs must be an integer >= 0, got -1.",
        ),
        (
            lambda: Config(schedule="milestones"),
            "milestones must be epochs where the schedule is milestones, and none else, got ().",
        ),
        (
            lambda: Config(milestones=(30,)),
            "milestones must be epochs where the schedule is milestones, and none else, got (30,).",
        ),
        (
            lambda: Config(schedule="milestones", milestones=(0,)),
            "milestones must be an integer >= 1, got 0.",
        ),
        (
            lambda: Config(dataset="python_text", augment="crop_flip"),
            "augment must be none for text, got 'crop_flip'.",
        ),
        (lambda: Runtime(devices=0), "devices must be an integer >= 1, got 0."),
        (lambda: Runtime(stop_after=-3), "stop_after must be an integer >= 1, got -3."),
        (lambda: Runtime(parallel="x"), "parallel must be one of mesh, pmap, fsdp, got 'x'."),
        (lambda: Runtime(heartbeat_seconds=0), "heartbeat_seconds must be an integer >= 1, got 0."),
        (
            lambda: Runtime(process_count=2),
            "process_count must be given with --coordinator only, got 2.",
        ),
        (
            lambda: Runtime(coordinator="host", process_id=0, process_count=2),
            "coordinator must be HOST:PORT of process 0, got 'host'.",
        ),
        (
            lambda: Runtime(coordinator="host:1", process_id=0),
            "process_count must be given with --coordinator, got None.",
        ),
        (
            lambda: Runtime(coordinator="host:1", process_count=2),
            "process_id must be given with --coordinator, got None.",
        ),
        (
            lambda: Runtime(coordinator="host:1", process_id=2, process_count=2),
            "process_id must be below the process_count 2, got 2.",
        ),
        (
            lambda: Runtime(coordinator="host:1", process_id=0, process_count=2, distributed=True),
            "distributed must be left out where there is a coordinator, got True.",
        ),
        (
            lambda: Config.from_json({"epoch": 3}),
            "config.json must be made of known fields only, got ['epoch'].",
        ),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=exactly(message)):
        make()


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match=r"^method must be one of dense, grda.*, got 'x'\.$"):
        Config(method=("x",))


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    config = PRESETS[name].CONFIG
    assert Config.from_json(config.to_json()) == config


def test_fingerprint_names_what_differs():
    base = Config()
    assert base.fingerprint(base) == ""
    other = Config(epochs=2, method=("dense", "grda"), grda=Settings(mu=0.7))
    assert other.fingerprint(base) == "epochs=2-grda.mu=0.7"
    assert other.differences(base) == {"epochs": (2, base.epochs), "grda.mu": (0.7, 0.6)}
    assert Config(method=("dense",)).fingerprint(base) == "method=dense"


def test_long_fingerprints_are_cut_and_stay_apart():
    base = Config()
    numbers = {"learning_rate": 0.123456789, "weight_decay": 0.000123456789, "batch_size": 12345}
    names = {
        Config(**numbers, epochs=77777, momentum=0.123456789, seed=seed).fingerprint(base)
        for seed in (1, 2)
    }
    assert len(names) == 2
    assert all(len(name) <= 80 for name in names)
