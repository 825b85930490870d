"""Config files that somebody has written or altered: a config, or an error that names the field."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.config import Config
from experiments.configs import PRESETS, command, default_name
from experiments.folder import RunFolder
from experiments.log import read_rows

DEFAULT = Config().to_json()
LEAVES = [
    *((name,) for name in DEFAULT),
    *((name, key) for name, x in DEFAULT.items() if isinstance(x, dict) for key in x),
]
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.integers()
    | st.sampled_from([2**31, 10**400, -(10**400), 1e308])
    | st.floats()
    | st.sampled_from(["grda", "recipe", "mlp", "adamw", "cosine", "microbatch", "erk", "soft"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(["c", "mu"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def altered(draw):
    """The default config with some other values, and sometimes more of them."""
    plain = json.loads(json.dumps(DEFAULT))
    for _ in range(draw(st.integers(1, 3))):
        first, *rest = draw(st.sampled_from(LEAVES))
        if rest and isinstance(plain[first], dict):
            plain[first][rest[0]] = draw(values)
        else:
            plain[first] = draw(values)
    if draw(st.integers(0, 9)) == 0:
        plain[draw(st.text(max_size=5))] = draw(values)
    return plain


def check_config(plain):
    """A config that goes to JSON and back and has a name; or a ValueError that names a field."""
    try:
        config = Config.from_json(plain)
    except ValueError as error:
        message = str(error)
    else:
        assert Config.from_json(config.to_json()) == config
        json.dumps(config.to_json(), allow_nan=False)
        assert len(default_name("digits", config)) < 100
        assert command(config, "digits").startswith("python -m experiments.run digits")
        return False
    words = set(re.findall(r"\w+", message.partition(" must be ")[0]))
    assert words & {"config", *DEFAULT, *(x[-1] for x in LEAVES)}, message
    assert " must be " in message
    return True


@settings(max_examples=200)
@given(altered())
def test_altered_configs(plain):
    check_config(plain)


@pytest.mark.slow
@settings(max_examples=2000)
@given(altered() | values)
def test_many_altered_configs(plain):
    check_config(plain)


@pytest.mark.parametrize("value", [5, None, [], "x", {"c": 1, "d": 2}, {"c": []}, True])
def test_settings_that_are_none(value):
    assert check_config({"grda": value})


def test_every_field_refuses_other_types():
    """Each of them takes neither an object nor a list of one, whatever else it takes."""
    for first, *rest in LEAVES:
        for value in ({"x": 1}, [{}], [[]], -1.5, float("nan"), b"x"):
            if rest == ["start"] and value == -1.5:
                continue  # of `str` it may be any number
            if rest:
                assert check_config({first: {rest[0]: value}}), (first, rest, value)
            else:
                assert check_config({first: value}), (first, value)


CHARACTERS = st.text(st.sampled_from('{}[]",:0123456789.eEnulltrufas\\ -'), max_size=60)
contents = (
    st.binary(max_size=60)
    | CHARACTERS.map(str.encode)
    | st.integers(0, 2000).map(lambda n: json.dumps(DEFAULT).encode()[:n])
    | st.integers(1, 5).map(lambda n: 10**n * b"[")
)


def check_folder(tmp_path_factory, content):
    """It is refused or gone on with; either way the file stays as it is, and nothing is added."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.config.write_bytes(content)
    folder.metrics.write_bytes(content)
    message = f"{folder.path} --overwrite"
    try:
        folder.open(Config())
    except FileExistsError as error:
        message = str(error)
    assert str(folder.path) in message
    assert "--overwrite" in message
    assert folder.config.read_bytes() == content
    assert sorted(x.name for x in folder.path.iterdir()) == ["config.json", "metrics.jsonl"]
    assert all(isinstance(row, dict) for row in read_rows(folder.metrics))
    assert all(isinstance(row["step"], int) for row in read_rows(folder.metrics, 5))


@settings(max_examples=100)
@given(contents)
def test_any_file_as_config_and_metrics(tmp_path_factory, content):
    check_folder(tmp_path_factory, content)


@pytest.mark.slow
@settings(max_examples=1000)
@given(contents)
def test_many_files_as_config_and_metrics(tmp_path_factory, content):
    check_folder(tmp_path_factory, content)


def test_presets_are_not_refused():
    assert not any(check_config(preset.CONFIG.to_json()) for preset in PRESETS.values())
