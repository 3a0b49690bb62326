import pytest

from deeplab_jax.data.descriptors import folder_classes, read_class_names, read_color_map
from deeplab_jax.errors import DeepLabError


@pytest.fixture
def text_file(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text, "utf-8")
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "\ufeffsky\n\n  small dog \n"),
        ("c.json", '["sky", "small dog"]'),
        ("c.json", '{"small dog": 1, "sky": 0}'),
    ],
)
def test_class_names(text_file, name, text):
    assert read_class_names(text_file(name, text)) == ("sky", "small dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", ""),
        ("c.txt", "a\na\n"),
        ("c.json", "[1, 2]"),
        ("c.json", '{"a": 0, "b": 2}'),
        ("c.json", '{"a": "0"}'),
        ("c.json", "{"),
        ("c.json", "7"),
    ],
)
def test_illegal_class_names_name_the_file(text_file, name, text):
    with pytest.raises(DeepLabError, match=rf"c\.{name[2:]}: "):
        read_class_names(text_file(name, text))


def test_tables_are_not_read_as_class_names(text_file):
    """Roboflow describes semantic segmentation masks by `_classes.csv`."""
    table = text_file("_classes.csv", "Pixel Value, Class\n0, background\n1, cat\n")
    with pytest.raises(DeepLabError, match=r"_classes\.csv: a table \(CSV\) cannot be read"):
        read_class_names(table)
    assert read_class_names(text_file("c.csv", "sky\nsmall dog\n")) == ("sky", "small dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.txt", "0 0 0 sky\n\n 1 2 255  small dog\n"),
        ("m.json", '{"sky": [0, 0, 0], "small dog": [1, 2, 255]}'),
    ],
)
def test_color_map(text_file, name, text):
    assert read_color_map(text_file(name, text)) == {"sky": (0, 0, 0), "small dog": (1, 2, 255)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.txt", ""),
        ("m.txt", "sky 0 0 0\n"),
        ("m.txt", "0 0 sky\n"),
        ("m.txt", "0 0 256 sky\n"),
        ("m.txt", "0 0 0 sky\n0 0 0 sea\n"),
        ("m.json", '{"sky": [0, 0]}'),
        ("m.json", '{"sky": 7}'),
        ("m.json", '{"sky": "123"}'),
        ("m.json", '{"sky": [0.5, 1.7, 2]}'),
        ("m.json", '{"sky": [0, 0, 1e999]}'),
        ("m.json", "[]"),
    ],
)
def test_illegal_color_maps_name_the_file(text_file, name, text):
    with pytest.raises(DeepLabError, match=rf"m\.{name[2:]}"):
        read_color_map(text_file(name, text))


def test_a_class_with_two_colors_is_refused(text_file):
    with pytest.raises(DeepLabError, match=r"m\.txt, line 3: the class 'sky' already has a color"):
        read_color_map(text_file("m.txt", "0 0 1 sky\n0 0 2 sea\n0 0 3 sky\n"))
    with pytest.raises(DeepLabError, match=r"m\.json: .*'sky' occurs twice"):
        read_color_map(text_file("m.json", '{"sky": [0, 0, 1], "sky": [0, 0, 2]}'))
    with pytest.raises(DeepLabError, match=r"c\.json: .*'sky' occurs twice"):
        read_class_names(text_file("c.json", '{"sky": 0, "sea": 1, "sky": 0}'))


def test_files_that_are_not_text_are_named_with_the_reason(tmp_path):
    with pytest.raises(DeepLabError, match="class names: it is a directory; give a text file"):
        read_class_names(tmp_path)
    (tmp_path / "c.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DeepLabError, match=r"c\.txt: .*not a text file in UTF-8"):
        read_class_names(tmp_path / "c.txt")
    with pytest.raises(DeepLabError, match=r"none\.txt: .*no such file"):
        read_class_names(tmp_path / "none.txt")


def test_color_maps_define_classes_and_void(text_file, tmp_path):
    colors = text_file("m.txt", "9 9 9 Void\n1 1 1 cat\n2 2 2 dog\n")
    descriptor, labels = folder_classes(tmp_path, None, colors)
    assert descriptor.class_names == ("cat", "dog")
    assert descriptor.palette == ((1, 1, 1), (2, 2, 2))
    assert labels == {(9, 9, 9): 255, (1, 1, 1): 0, (2, 2, 2): 1}
    text_file("classes.txt", "dog\ncat\n")
    descriptor, labels = folder_classes(tmp_path, None, colors)
    assert descriptor.class_names == ("dog", "cat")
    assert labels[(2, 2, 2)] == 0


def test_the_void_label_of_labelme_is_no_class_of_masks(text_file, tmp_path):
    """labelme's list of labels begins with `__ignore__`, whose index is -1."""
    given = text_file("labels.txt", "__ignore__\n_background_\ncat\n")
    with pytest.raises(DeepLabError, match=r"labels\.txt: '__ignore__' is .* masks is 255; remove"):
        folder_classes(tmp_path, given, None)
    given.write_text("_background_\ncat\n")
    assert folder_classes(tmp_path, given, None)[0].class_names == ("_background_", "cat")


@pytest.mark.parametrize(
    ("names", "colors", "complaint"),
    [
        (None, None, "no class names"),
        ("cat\ncow\n", "1 1 1 cat\n", "the class 'cow' has no color"),
        ("cat\n", "1 1 1 cat\n2 2 2 cow\n", "'cow' is not one of the classes"),
    ],
)
def test_invalid_class_files_are_refused(text_file, tmp_path, names, colors, complaint):
    class_file = names and text_file("c.txt", names)
    color_map = colors and text_file("m.txt", colors)
    with pytest.raises(DeepLabError, match=complaint):
        folder_classes(tmp_path, class_file, color_map)
