"""Every block of Python in a README runs, and shows what it says it shows."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def programs():
    """The blocks of Python, each with the text that it should print; the first two are one."""
    found = []
    for kind, code in BLOCKS:
        if kind == "text":
            found[-1] = (found[-1][0], code)
        elif len(found) == 1 and found[0][1] is None and "import jax.numpy" in code:
            found = [(found[0][0] + code, None)]
        else:
            found.append((code, None))
    return found


@pytest.mark.parametrize(("code", "output"), programs())
def test_a_block_runs(code, output, capsys):
    with jax.numpy_rank_promotion("allow"):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    if output is not None:
        assert without_layers(printed) == without_layers(output)


def without_layers(table):
    """How the zeros are shared out among layers differs with the rounding of a machine."""
    return [re.sub(r"\d", "#", x) if "/kernel" in x else x for x in table.splitlines()]


def test_the_first_commands_stand_there():
    for line in (
        'python -m pip install -e ".[experiments]" && python -m experiments.run digits',
        'python -m pip install -e ".[test]" && python -m pytest',
    ):
        assert f"\n    {line}\n" in README


@pytest.mark.parametrize("path", ["README.md", "experiments/README.md"])
def test_links_lead_somewhere(path):
    folder = (ROOT / path).parent
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / path).read_text()):
        if not target.startswith("http"):
            assert (folder / target).exists(), target


def test_every_public_name_is_in_the_table():
    import grda_optax

    table = README[README.index("## Public names") : README.index("## Contribute")]
    names = {name for name in dir(grda_optax) if not name.startswith("_")}
    assert names - set(re.findall(r"`(\w+)`", table)) == set()
