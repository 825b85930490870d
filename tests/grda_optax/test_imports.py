"""What an import brings along, and that every public name says what it does."""

import inspect
import subprocess
import sys
import textwrap

import pytest

import grda_optax

HEAVY = [
    "experiments",
    "flax",
    "matplotlib",
    "orbax",
    "safetensors",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "tyro",
]
PUBLIC = [name for name in dir(grda_optax) if not name.startswith("_")]
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(grda_optax, name))]
CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(grda_optax, name))]


def test_the_import_is_light():
    """Optax brings only what it needs itself, so that is taken off."""
    code = """
        import sys
        import optax, jax
        before = set(sys.modules)
        import grda_optax
        print(*{name.split(".")[0] for name in set(sys.modules) - before})
        print(*{name.split(".")[0] for name in sys.modules})
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    new, everything = (set(line.split()) for line in out.stdout.splitlines())
    assert new == {"grda_optax"}
    assert everything.isdisjoint(HEAVY)


def test_nothing_else_is_public():
    """No submodule, no name of somebody else's."""
    assert {"grda", "dual_averaging", "soft_threshold", "sparsity"} <= set(FUNCTIONS)
    for name in PUBLIC:
        thing = getattr(grda_optax, name)
        assert not inspect.ismodule(thing), name
        module = getattr(thing, "__module__", "grda_optax")
        assert module.startswith(("grda_optax", "collections.abc", "typing")), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name):
    """Sections, in which every argument is named, and an example that runs as a doctest."""
    function = getattr(grda_optax, name)
    text = inspect.getdoc(function)
    assert text.splitlines()[0].endswith(".")
    sections = ["Args:", "Returns:", "Examples:"]
    if name != "nonzero_mask":  # which takes any tree
        sections.insert(2, "Raises:")
    positions = [text.index(f"\n{section}\n") for section in sections]
    assert positions == sorted(positions)
    assert ">>> " in text[positions[-1] :]
    arguments = text[positions[0] : positions[1]]
    for argument in inspect.signature(function).parameters:
        assert f"\n    {argument}: " in arguments, argument


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_documented(name):
    """Every field of a named tuple is among its attributes."""
    thing = getattr(grda_optax, name)
    text = inspect.getdoc(thing)
    for field in getattr(thing, "_fields", ()):
        assert f"    {field}: " in text, field


def test_annotations_are_complete():
    for name in FUNCTIONS:
        signature = inspect.signature(getattr(grda_optax, name))
        assert signature.return_annotation is not signature.empty, name
        for parameter in signature.parameters.values():
            assert parameter.annotation is not parameter.empty, (name, parameter)


def test_py_typed_is_there():
    from importlib.resources import files

    assert (files(grda_optax) / "py.typed").is_file()
