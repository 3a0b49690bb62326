"""Parameters of the dense CRF in files."""

import dataclasses
import json
from pathlib import Path

from deeplab_jax.crf import CRFParameters, check_parameters
from deeplab_jax.errors import DeepLabError, unknown_name


def read_crf_parameters(path: str | Path) -> CRFParameters:
    """Returns the parameters in a JSON file: of `crf-search`, or just fields and their values.

    Fields of `CRFParameters` that have a default may be left out.

    Args:
      path: of an object of fields, or of one that holds it as `parameters`.

    Raises:
      DeepLabError: there is no such file, it is something else, or a value is illegal.
    """
    path = Path(path)
    if not path.is_file():
        raise DeepLabError(f"{path}: no such file of CRF parameters")
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DeepLabError(f"{path}: no JSON: {error}") from None
    values = found.get("parameters", found) if isinstance(found, dict) else found
    if not isinstance(values, dict):
        raise DeepLabError(f"{path}: no object of CRF parameters; crf-search writes one")
    fields = {field.name: field for field in dataclasses.fields(CRFParameters)}
    for name in values:
        if name not in fields:
            raise unknown_name(f"{path}: CRF parameter", name, fields)
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    if missing := [name for name in needed if name not in values]:
        raise DeepLabError(f"{path}: CRF parameters lack {', '.join(missing)}")
    for name, value in values.items():
        # Only numbers of JSON: NaN and texts in their place fail later or nowhere.
        is_text = fields[name].type in (str, "str")
        if isinstance(value, bool) or not isinstance(value, str if is_text else int | float):
            raise DeepLabError(f"{path}: CRF parameter {name} is {value!r}, of the wrong kind")
    parameters = CRFParameters(**values)
    check_parameters(parameters)
    return parameters
