"""Whether a SavedModel is one for a package's specs, told from its file alone, where Neuropod loads it with TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..dropin.protobuf import Message

_SIGNATURE = "serving_default"

# Field numbers of saved_model.proto and meta_graph.proto: SavedModel, MetaGraphDef and SignatureDef; of the entries of a map.
_META_GRAPHS, _SIGNATURES, _INPUTS, _OUTPUTS = 2, 5, 1, 2
_KEY, _VALUE = 1, 2


def check_signature(folder: str | os.PathLike[str], inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Raise ValueError unless the signature ``serving_default`` takes just these inputs, and gives these outputs among others."""
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        graphs = Message(file.read()).messages(_META_GRAPHS)
    signatures = {
        entry.text(_KEY): entry.message(_VALUE) for one in graphs for entry in one.messages(_SIGNATURES)
    }
    if _SIGNATURE not in signatures:
        raise ValueError(
            f"the SavedModel {os.fspath(folder)} has the signatures {sorted(signatures)}; expected {_SIGNATURE!r} among them: "
            f"save it with signatures={{{_SIGNATURE!r}: ...}}"
        )
    found = signatures[_SIGNATURE]
    takes, gives = ({entry.text(_KEY) for entry in found.messages(side)} for side in (_INPUTS, _OUTPUTS))
    if takes != set(inputs):
        raise ValueError(
            f"the signature {_SIGNATURE} of {os.fspath(folder)} takes {sorted(takes)}; input_spec has {sorted(inputs)}, "
            "and both must be the same"
        )
    missing = sorted(set(outputs) - gives)
    if missing:
        raise ValueError(
            f"the signature {_SIGNATURE} of {os.fspath(folder)} gives {sorted(gives)}; output_spec has {missing[0]!r} too"
        )
