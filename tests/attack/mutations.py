"""Mutations of files: bytes, members of archives, messages of ONNX, values of JSON; each the same for the same seed."""

from __future__ import annotations

import io
import json
import random
import string
import zipfile
from collections.abc import Callable
from typing import Any

import onnx

#: Names that would run as code in a source that they are pasted into unescaped, and odd ones that are harmless.
NAMES = (
    '"), __import__("os").system("touch hacked"), ("',
    "'+__import__('os').system('touch hacked')+'",
    'p=__import__("os").system("touch hacked"), *',
    "a\nimport os; os.system('touch hacked')",
    "../../hacked", "a/b c:d", "日本", "", ".", "class", "to", "x" * 5000, "\x1b[31m", "a\x00b",
)  # fmt: skip
#: Numbers that readers trip over.
NUMBERS = (0, -1, 1, 2, 7, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63))
#: The share of mutated members that are compressed.
_DEFLATED = 0.2


def mutate(content: bytes, kind: str, seed: int) -> bytes:
    """Return a mutated file.

    Args:
        content: the file.
        kind: "pt", "pt2", "onnx", "json", "toml", "png" or "npz".
        seed: which mutation.
    """
    draw = random.Random(f"{kind} {seed}")  # the kind of a case is drawn with its seed alone
    ways: list[Callable[[bytes, random.Random], bytes]] = [flipped, cut_off, spliced]
    ways += {"onnx": [changed_message] * 9, "json": [changed_json] * 9, "toml": [changed_toml] * 9}.get(kind, [])
    ways += [changed_member] * 6 if kind in ("pt", "pt2", "npz") else []
    return draw.choice(ways)(content, draw)


def flipped(content: bytes, draw: random.Random) -> bytes:
    """A few bytes changed."""
    made = bytearray(content)
    for _ in range(draw.choice((1, 2, 8, 64))):
        made[draw.randrange(len(made))] = draw.randrange(256)
    return bytes(made)


def cut_off(content: bytes, draw: random.Random) -> bytes:
    """The end missing, or bytes after the end."""
    end = draw.randrange(len(content))
    return content[:end] if draw.random() < 0.7 else content + content[:end]


def spliced(content: bytes, draw: random.Random) -> bytes:
    """A part of the file at another place."""
    a, b, c = sorted(draw.randrange(len(content)) for _ in range(3))
    return content[:a] + content[b:c] + content[a:]


def changed_member(content: bytes, draw: random.Random) -> bytes:
    """One member of a zip archive mutated, renamed, doubled or left out."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    index = draw.randrange(len(members))
    name, data = members[index]
    way = draw.choice(("bytes", "bytes", "json", "rename", "double", "drop", "text"))
    if way == "json" and name.endswith(".json"):
        data = changed_json(data, draw)
    elif way == "text" and name.endswith(".py"):
        data = data + b"\n" + draw.choice(("while True:\n  pass\n", "import os\n", "ops.c10d.x()\n")).encode()
    elif way == "rename":
        name = draw.choice((*NAMES[4:8], name + "x", "a/data.pkl"))
    elif way == "double":
        members.insert(index, (name, data))
    elif data:
        data = draw.choice((flipped, cut_off, spliced))(data, draw)
    members[index : index + 1] = [] if way == "drop" else [(name, data)]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members:
            kind = zipfile.ZIP_DEFLATED if draw.random() < _DEFLATED else zipfile.ZIP_STORED
            archive.writestr(zipfile.ZipInfo(name or "_"), data, kind)
    return made.getvalue()


def changed_json(content: bytes, draw: random.Random) -> bytes:
    """One to three values of a JSON document changed."""
    try:
        tree = json.loads(content)
    except ValueError:
        return flipped(content, draw)
    for _ in range(draw.choice((1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return b"[]"
        holder, key = draw.choice(places)
        way = draw.choice(("value", "value", "value", "drop", "key"))
        if way == "drop":
            del holder[key]
        elif way == "key" and isinstance(holder, dict):
            holder[draw.choice(NAMES)] = holder.pop(key)
        else:
            holder[key] = draw.choice((None, True, -1, 0, 1e308, 2**70, "", [], {}, [[]], *NAMES, holder[key]))
    return json.dumps(tree).encode()


def changed_toml(content: bytes, draw: random.Random) -> bytes:
    """One to three lines added, with keys that pfp knows and values that it does not expect."""
    lines = content.decode().splitlines()
    for _ in range(draw.choice((1, 1, 2, 3))):
        key = draw.choice(
            ("keep", "seed", "threads", "arch", "arch-kwargs", "trust", "metric", "out", "mean", "freeze")
        )
        value = draw.choice((
            "nan", "-inf", "1e400", "9" * 5000, f"0x{'f' * 5000}", "true", "1979-05-27", "'os:system'", "'timm:x'",
            '"\\u001b[31m\\n"', "[]", f"{'[' * 2000}{']' * 2000}", "{a=1979-05-27}", f"{{a=0x{'f' * 5000}}}", "{",
        ))  # fmt: skip
        lines.insert(draw.randrange(len(lines) + 1), f"{draw.choice((key, key, '[compress]', '[x]', 'a.b'))} = {value}")
    return "\n".join(lines).encode()


def _places(tree: Any) -> Any:
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(entries):
        yield tree, key
        yield from _places(value)


def changed_message(content: bytes, draw: random.Random) -> bytes:
    """One to three fields of an ONNX model changed."""
    model = onnx.load_from_string(content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        draw.choice((_node, _node, _tensor, _tensor, _value, _model))(model, draw)
    return model.SerializeToString()


def _node(model: onnx.ModelProto, draw: random.Random) -> None:
    if not model.graph.node:
        return
    node = draw.choice(model.graph.node)
    way = draw.randrange(7)
    names = [name for each in model.graph.node for name in (*each.input, *each.output)] or [""]
    if way == 0:
        node.op_type = draw.choice((*(each.op_type for each in model.graph.node), "TopK", "Loop", "Einsum", "NoSuchOp"))
    elif way == 1 and node.input:
        node.input[draw.randrange(len(node.input))] = draw.choice(names)
    elif way == 2 and node.input:
        del node.input[draw.randrange(len(node.input))]
    elif way == 3 and node.output:
        node.output[draw.randrange(len(node.output))] = draw.choice((*names, *NAMES))
    elif way == 4:
        node.name = draw.choice(NAMES)
    elif way == 5 and node.attribute:
        _attribute(draw.choice(node.attribute), draw)
    else:
        model.graph.node.remove(node)


def _attribute(attribute: onnx.AttributeProto, draw: random.Random) -> None:
    number = draw.choice(NUMBERS)
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = number
        if draw.random() < 0.3:
            del attribute.ints[0]
    elif attribute.HasField("i"):
        attribute.i = number
    elif attribute.HasField("f"):
        attribute.f = draw.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
    elif attribute.HasField("s"):
        attribute.s = draw.choice(("", "zero", *NAMES[:3])).encode()
    elif attribute.HasField("t"):
        _shape(attribute.t, draw)
    else:
        attribute.name = draw.choice(string.ascii_lowercase)


def _tensor(model: onnx.ModelProto, draw: random.Random) -> None:
    if model.graph.initializer:
        _shape(draw.choice(model.graph.initializer), draw)


def _shape(tensor: onnx.TensorProto, draw: random.Random) -> None:
    way = draw.randrange(5)
    if way == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(NUMBERS)
    elif way == 1:
        tensor.data_type = draw.randrange(30)
    elif way == 2:
        tensor.raw_data = tensor.raw_data[: draw.randrange(1 + len(tensor.raw_data))]
    elif way == 3:
        tensor.name = draw.choice(NAMES)
    else:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=draw.choice(("/etc/passwd", "../../../etc/passwd", "no")))


def _value(model: onnx.ModelProto, draw: random.Random) -> None:
    value = draw.choice((*model.graph.input, *model.graph.output, onnx.ValueInfoProto()))
    dims = value.type.tensor_type.shape.dim
    way = draw.randrange(4)
    if way == 0 and dims:
        dims[draw.randrange(len(dims))].dim_value = draw.choice(NUMBERS)
    elif way == 1 and dims:
        dims[draw.randrange(len(dims))].dim_param = draw.choice(NAMES)
    elif way == 2:
        value.name = draw.choice(NAMES)
    else:
        value.type.tensor_type.elem_type = draw.randrange(30)


def _model(model: onnx.ModelProto, draw: random.Random) -> None:
    way = draw.randrange(4)
    if way == 0 and model.opset_import:
        model.opset_import[0].version = draw.choice((0, 1, 6, 9, 11, 22, 2**40))
    elif way == 1:
        model.ir_version = draw.choice((0, 1, 3, 2**40))
    elif way == 2:
        model.graph.output.add().name = draw.choice(NAMES)
    else:
        model.graph.input.add().CopyFrom(model.graph.input[0]) if model.graph.input else None
