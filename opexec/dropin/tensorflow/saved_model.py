"""`tf.saved_model.load`, of a SavedModel in a worker."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opexec import LoadError, Model, SpecError
from opexec import load as load_in_worker

from ..eager import eager
from ..face import Face
from ..original import forwarding
from ..protobuf import Message

__all__ = ["DEFAULT_SERVING_SIGNATURE_DEF_KEY", "SERVING", "SavedModel", "Signature", "load"]

DEFAULT_SERVING_SIGNATURE_DEF_KEY = "serving_default"
SERVING = "serve"

__getattr__ = forwarding(__name__, "tensorflow.saved_model", ", ".join(__all__))

# Field numbers of saved_model.proto and meta_graph.proto: SavedModel, MetaGraphDef, MetaInfoDef, SignatureDef.
_META_GRAPHS, _META_INFO, _SIGNATURES, _TAGS, _OUTPUTS = 2, 1, 5, 4, 2
_INTERNAL = "__saved_model"  # how the names of signatures begin that are TensorFlow's own


def load(
    export_dir: str | os.PathLike[str],
    tags: str | Sequence[str] | None = None,
    options: Any = None,
    *,
    env: Any = None,
    **others: Any,
) -> SavedModel:
    """Load the folder of a SavedModel. `env` and further keywords: see `opexec.load`; its `options` is a dict, which TensorFlow's is not."""
    if options is not None and not isinstance(options, Mapping):
        raise TypeError(
            f"options is of type {type(options).__qualname__}; expected None, or a dict: TensorFlow's LoadOptions mean nothing to a worker"
        )
    wanted = None if tags is None else [tags] if isinstance(tags, str) else list(tags)
    names = signature_names(Path(export_dir).expanduser(), wanted)
    settings = dict(options or {})
    if wanted is not None:
        settings["tags"] = wanted

    def start(signature: str) -> Model:
        return load_in_worker(
            export_dir, platform="tensorflow", env=env, options={**settings, "signature": signature}, **others
        )

    return SavedModel(names, start)


class Signature(Face):
    """A signature: called with its inputs by name, or with the one that it has; gives its outputs by name.

    Where TensorFlow's tensors go in tensors come out; otherwise numpy arrays, which have the tensors' `numpy()`.
    """

    def __call__(self, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if args:
            names = [spec.name for spec in self.opexec_model.inputs or ()]
            if len(args) > 1 or kwargs or len(names) != 1:  # a SavedModel does not keep the order of several
                raise SpecError(
                    f"{len(args)} inputs by position and {sorted(kwargs)} by name; give the signature's inputs by name: {names}"
                )
            kwargs = {names[0]: args[0]}
        results: dict[str, Any] = eager(self.opexec_model.infer(kwargs))
        return results


class Signatures(Mapping[str, Signature]):
    """Signatures by name. Each has a worker of its own, which starts when the signature is first asked for."""

    def __init__(self, names: Sequence[str], start: Callable[[str], Model]) -> None:
        self._names = tuple(names)
        self._start = start
        self._started: dict[str, Signature] = {}
        self._closed = False
        self._one_at_a_time = threading.Lock()

    def __getitem__(self, name: str) -> Signature:
        if name not in self._names:
            raise KeyError(name)
        with self._one_at_a_time:
            if name not in self._started:
                if self._closed:
                    raise LoadError(
                        f"the SavedModel was closed before its signature {name!r} was loaded; load it again",
                        stage="load",
                    )
                self._started[name] = Signature(self._start(name))
            return self._started[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"<signatures {', '.join(self._names)}>"

    def close(self) -> None:
        with self._one_at_a_time:
            self._closed = True
            for signature in self._started.values():
                signature.close()


class SavedModel(Face):
    """What `load` returns: `signatures` by name; a call is one of the signature ``serving_default``, or of the first where there is none.

    A call gives the one output, or a dict of several. `opexec_model` is that signature's.
    """

    def __init__(self, names: Sequence[str], start: Callable[[str], Model]) -> None:
        self.signatures = Signatures(names, start)
        default = DEFAULT_SERVING_SIGNATURE_DEF_KEY
        self._default = self.signatures[default if default in names else names[0]]
        super().__init__(self._default.opexec_model)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if kwargs.pop("training", False):
            raise ValueError("a signature is for inference: it cannot be called with training=True")
        results = self._default(*args, **kwargs)
        return next(iter(results.values())) if len(results) == 1 else results

    def close(self) -> None:
        self.signatures.close()


def signature_names(folder: Path, tags: Sequence[str] | None = None) -> list[str]:
    """The signatures in a SavedModel's folder, of the graph that has these tags, or of the first one. Raises LoadError."""
    file = folder / "saved_model.pb"
    try:
        graphs = Message(file.read_bytes()).messages(_META_GRAPHS)
        tagged = [(sorted(_texts(graph.message(_META_INFO), _TAGS)), graph) for graph in graphs]
        if tags is None:
            tags = tagged[0][0] if len(tagged) == 1 else [SERVING]
        fitting = [graph for found, graph in tagged if found == sorted(set(tags))]
        if not fitting:
            raise LoadError(
                f"{folder} has graphs tagged {[found for found, _ in tagged]}; none is tagged {tags}",
                stage="source",
            )
        signatures = fitting[0].messages(_SIGNATURES)
        names = [entry.text(1) for entry in signatures if entry.message(2).messages(_OUTPUTS)]
    except (OSError, ValueError) as error:
        raise LoadError(
            f"expected the folder of a SavedModel, with a file saved_model.pb; {folder}: {error}",
            stage="source",
        ) from error
    names = sorted(name for name in names if not name.startswith(_INTERNAL))
    if not names:
        raise LoadError(
            f"the SavedModel in {folder} has no signature, and only signatures can be called in another process: "
            "save it with tf.saved_model.save(model, folder, signatures=...)",
            stage="source",
        )
    return names


def _texts(message: Message, number: int) -> list[str]:
    return [
        bytes(value).decode()
        for field, value in message.fields()
        if field == number and not isinstance(value, int)
    ]
