import pytest

from deeplab_jax.models.output_stride import rename_branches_to_match


def arrays(part, *rates):
    """Returns arrays by path, each with its original path as value."""
    names = [*(f"rate_{rate}" for rate in rates), "projection"]
    paths = [("params", part, name, "kernel") for name in names]
    paths += [("params", part, f"rate_{rate}/fc8", "kernel") for rate in rates]
    return {path: "/".join(path) for path in paths}


@pytest.mark.parametrize(
    ("old", "new"), [((6, 12, 18), (12, 24, 36)), ((12, 24, 36), (6, 12, 18)), ((2, 4), (1, 2))]
)
def test_branches_follow_the_output_stride(old, new):
    """Also if a name is both old and new, and although '12' sorts before '6' as text."""
    found = rename_branches_to_match(arrays("aspp", *old), arrays("aspp", *new))
    assert found.keys() == arrays("aspp", *new).keys()
    for before, after in zip(old, new, strict=True):
        assert found["params", "aspp", f"rate_{after}", "kernel"].split("/")[2] == f"rate_{before}"
        fc8 = found["params", "aspp", f"rate_{after}/fc8", "kernel"]
        assert fc8 == f"params/aspp/rate_{before}/fc8/kernel"


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("aspp", (6, 12, 18), (6, 12, 18)),
        ("aspp", (2, 4, 8, 12), (6, 12, 18, 24)),
        ("aspp", (6, 12, 18), (6, 12, 18, 24)),
        ("aspp", (), (6, 12, 18)),
        ("aspp", (6, 12, 18), ()),
        ("decoder", (6, 12), (12, 24)),
    ],
)
def test_other_branches_keep_their_names(part, old, new):
    given = arrays(part, *old)
    assert rename_branches_to_match(given, arrays(part, *new)) == given
