"""TF Serving's REST interface to predict, for a process that has TensorFlow and not this project: JSON in, JSON out.

Written from reading json_tensor.cc and predict_util.cc of TensorFlow Serving; nothing is copied but the words of its
errors. Arguments: the folder of an installed package (for where TensorFlow is) and a SavedModel; requests come on
standard input, one JSON document a line, and are answered likewise.
"""

import base64
import json
import sys
from pathlib import Path

OURS = ("crossrisk", "expectations", "flows", "models", "tasks")


class RequestError(Exception):
    """What the server answers with status 400."""


class Blocker:
    """Finds none of our packages, wherever they are installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OURS:
            raise ModuleNotFoundError(f"No module named {name!r}: a stranger has no such package")


def type_name(value):
    names = {bool: str(value), type(None): "Null", str: "String", list: "Array", dict: "Object"}
    return names.get(type(value), "Number")


def convert(value, dtype):
    """One JSON value as the type of an input."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if dtype == "string" and isinstance(value, dict) and list(value) == ["b64"]:
        return base64.b64decode(value["b64"])
    fits = {
        "double": is_number,
        "int32": is_number and isinstance(value, int) and -(2**31) <= value < 2**31,
        "string": isinstance(value, str),
    }[dtype]
    if not fits:
        shown = json.dumps(value)
        raise RequestError(f"JSON Value: {shown} Type: {type_name(value)} is not of expected type: {dtype}")
    return value.encode() if dtype == "string" else value


def of_rows(instances, dtypes):
    """The row form, as columns."""
    if len(dtypes) == 1 and not (isinstance(instances[0], dict) and list(instances[0]) != ["b64"]):
        return {name: [convert(value, dtype) for value in instances] for name, dtype in dtypes.items()}
    columns = {name: [] for name in dtypes}
    for place, row in enumerate(instances):
        for name, value in row.items():
            try:
                if name not in dtypes:
                    raise RequestError(f"JSON object: does not have named input: {name}")
                columns[name].append(convert(value, dtypes[name]))
            except RequestError as error:
                raise RequestError(
                    f"Failed to process element: {place} key: {name} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: {error}"
                ) from None
        if row.keys() != dtypes.keys():
            raise RequestError(
                f"Failed to process element: {place} of 'instances' list. JSON object: {json.dumps(row)} keys must be "
                f"equal to: {','.join(sorted(dtypes))}"
            )
    return columns


def of_columns(inputs, dtypes):
    """The column form, as columns; names that the signature has not are not looked at."""
    if not isinstance(inputs, dict):
        inputs = dict.fromkeys(dtypes, inputs)
    for name in sorted(dtypes):
        if name not in inputs:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: [convert(value, dtype) for value in inputs[name]] for name, dtype in dtypes.items()}


def plain(value):
    return value.decode() if isinstance(value, bytes) else value


def nested(values):
    return [nested(value) for value in values] if isinstance(values, list) else plain(values)


def answer(model, request):
    """What the server says: {"predictions": rows} or {"outputs": columns} or {"error": why}."""
    import tensorflow as tf

    if "describe" in request:
        return {name: describe(signature) for name, signature in model.signatures.items()}
    signature = model.signatures[request.get("signature_name", "serving_default")]
    specs = signature.structured_input_signature[1]
    dtypes = {name: {"float64": "double"}.get(spec.dtype.name, spec.dtype.name) for name, spec in specs.items()}
    try:
        by_row = "instances" in request
        columns = of_rows(request["instances"], dtypes) if by_row else of_columns(request["inputs"], dtypes)
        feed = {name: tf.constant(values, specs[name].dtype) for name, values in columns.items()}
        outputs = {name: nested(tensor.numpy().tolist()) for name, tensor in signature(**feed).items()}
    except (RequestError, tf.errors.OpError) as error:
        return {"error": str(error)}
    if not by_row:
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}
    if len(outputs) == 1:
        return {"predictions": next(iter(outputs.values()))}
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}


def describe(signature):
    """Names and types of inputs and outputs: {"inputs": {name: [type, rank]}, "outputs": likewise}."""
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    return {
        side: {name: [spec.dtype.name, spec.shape.rank] for name, spec in specs.items()}
        for side, specs in (("inputs", inputs), ("outputs", outputs))
    }


def main(package, directory):
    sys.meta_path.insert(0, Blocker())
    sys.path.append(str(Path(package).parent))
    for name in OURS:
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        raise AssertionError(f"{name} can be imported here")
    import tensorflow as tf

    model = tf.saved_model.load(directory)
    for line in sys.stdin:
        print(json.dumps(answer(model, json.loads(line))))


if __name__ == "__main__":
    main(*sys.argv[1:])
