"""TensorFlow packages: of a frozen graph, a SavedModel, or an object that TensorFlow can save."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..package import DATA, Package
from ..packages.draft import Draft
from .packing import add_file, create, exactly_one

_Path = str | os.PathLike[str]


def create_tensorflow_package(
    *,
    frozen_graph_path: _Path | None = None,
    graph_def: Any = None,
    saved_model_dir: _Path | None = None,
    trackable_obj: Any = None,
    node_name_mapping: Mapping[str, str] | None = None,
    init_op_names: str | Iterable[str] = (),
    **common: Any,
) -> Package:
    """Exactly one of `frozen_graph_path`, `graph_def` (a GraphDef, or its bytes), `saved_model_dir` (with the signature
    ``serving_default``), `trackable_obj` (what ``tf.saved_model.save`` takes).

    `node_name_mapping`: the graph's node for each name in the specs, with or without ``":0"``; needed for graphs.
    `init_op_names`: operations, or the one, that run once, before the first call. The others are `packing.create`'s.
    """
    given = exactly_one(
        frozen_graph_path=frozen_graph_path,
        graph_def=graph_def,
        saved_model_dir=saved_model_dir,
        trackable_obj=trackable_obj,
    )
    mapping = dict(node_name_mapping or {})
    initial = [init_op_names] if isinstance(init_op_names, str) else list(init_op_names)
    if given in ("frozen_graph_path", "graph_def"):
        _check_mapping(mapping, common)

    def fill(draft: Draft) -> dict[str, Any]:
        saved = draft.path(f"{DATA}/savedmodel")
        if frozen_graph_path is not None:
            add_file(draft, f"{DATA}/model.pb", frozen_graph_path)
        elif graph_def is not None:
            draft.write(f"{DATA}/model.pb", _serialised(graph_def))
        elif saved_model_dir is not None:
            if not os.path.isdir(saved_model_dir):
                raise ValueError(f"there is no folder {os.fspath(saved_model_dir)}; check saved_model_dir")
            draft.add(f"{DATA}/savedmodel", saved_model_dir)
        else:
            _save(trackable_obj, saved)
        return {"node_name_mapping": mapping, "init_op_names": initial}

    return create("tensorflow", fill, **common)


def _check_mapping(mapping: Mapping[str, str], common: Mapping[str, Any]) -> None:
    names = [_name(spec) for key in ("input_spec", "output_spec") for spec in common.get(key) or ()]
    missing = [name for name in names if name not in mapping]
    if missing:
        raise ValueError(
            f"node_name_mapping has no node for {', '.join(map(repr, missing))}; expected one for each name in the specs"
        )
    unknown = sorted(set(mapping) - set(names))
    if unknown:
        raise ValueError(f"node_name_mapping has {unknown[0]!r}, which is in neither spec")


def _name(spec: Any) -> str:
    return str(spec["name"] if isinstance(spec, Mapping) else spec.name)


def _serialised(graph_def: Any) -> bytes:
    if isinstance(graph_def, bytes):
        return graph_def
    content: bytes = graph_def.SerializeToString()
    return content


def _save(trackable_obj: Any, folder: Path) -> None:
    import tensorflow

    tensorflow.saved_model.save(trackable_obj, str(folder))
