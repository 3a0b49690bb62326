import pytest

from deeplab_jax.errors import DeepLabError, unknown_name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "resnet50",
            "unknown backbone 'resnet50'; did you mean 'resnet_50'? legal: resnet_50, vgg",
        ),
        ("VGG", "unknown backbone 'VGG'; did you mean 'vgg'? legal: resnet_50, vgg"),
        ("zzz", "unknown backbone 'zzz'; legal: resnet_50, vgg"),
    ],
)
def test_few_names_are_all_listed(name, message):
    error = unknown_name("backbone", name, iter(["resnet_50", "vgg"]))
    assert isinstance(error, DeepLabError)
    assert str(error) == message


def test_of_many_names_only_the_alike_are_listed():
    names = ["learning_rate", *(f"other_{number}" for number in range(40))]
    error = str(unknown_name("field", "learning_rat", names))
    assert error.endswith("did you mean 'learning_rate'? legal: learning_rate, …")


def test_python_callers_catch_a_value_error():
    assert issubclass(DeepLabError, ValueError)
