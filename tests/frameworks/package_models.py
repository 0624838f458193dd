"""Writes model files for packages with the framework of the interpreter that runs this: ``python package_models.py KIND FOLDER``. Python >= 3.7."""

import os
import sys


def torchscript(folder):
    from typing import Dict, List, NamedTuple, Union

    import torch

    class Parts(NamedTuple):
        sum: torch.Tensor
        difference: torch.Tensor
        said: List[str]

    class Tensors(torch.nn.Module):
        def forward(self, inputs: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
            return {"out": (inputs["x"] + inputs["y"]).t()}  # not contiguous

    class Either(torch.nn.Module):
        def forward(self, inputs: Dict[str, Union[List[str], torch.Tensor]]):
            x = inputs["x"]
            texts = inputs["s"]
            assert isinstance(x, torch.Tensor)
            assert isinstance(texts, List[str])
            out: Dict[str, Union[List[str], torch.Tensor]] = {}
            out["y"] = x * 2
            out["t"] = [one + "!" for one in texts]
            return out

    class Fields(torch.nn.Module):
        def forward(self, x, y):
            return Parts(x + y, x - y, ["a", "b"])

    class Several(torch.nn.Module):
        def forward(self, x):
            return {"out": x * 2}, {"said": ["a", "b"]}, {"more": x + 1}

    class Twice(torch.nn.Module):
        def forward(self, x):
            return {"out": x * 2}, {"said": ["a", "b"]}, {"out": x * 2}

    class Words(torch.nn.Module):
        def forward(self, inputs: Dict[str, List[str]]) -> Dict[str, List[str]]:
            out: List[str] = []
            for i in range(len(inputs["x"])):
                out.append(inputs["x"][i] + " " + inputs["y"][i])
            return {"out": out}

    for module in (Tensors(), Either(), Fields(), Several(), Twice(), Words()):
        torch.jit.save(torch.jit.script(module), os.path.join(folder, type(module).__name__.lower() + ".pt"))


def layouts_tensorflow(folder):
    import tensorflow

    tf = tensorflow.compat.v1
    with tf.Graph().as_default() as graph:
        with tf.name_scope("scope"):
            x = tf.placeholder(tf.float32, [None, 3], name="in_x")
            text = tf.placeholder(tf.string, [None], name="in_text")
        factor = tf.get_variable("factor", initializer=2.0, use_resource=False)
        tf.multiply(x, factor, name="scope/out")
        tf.strings.join([text, "!"], name="scope/said")
        tf.group(tf.global_variables_initializer(), name="start")
    with open(os.path.join(folder, "model.pb"), "wb") as file:
        file.write(graph.as_graph_def().SerializeToString())
    with tf.Graph().as_default() as frozen:
        tf.strings.join([tf.placeholder(tf.string, [None], name="scope/in_text"), "!"], name="scope/said")
    with open(os.path.join(folder, "frozen.pb"), "wb") as file:
        file.write(frozen.as_graph_def().SerializeToString())
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 3], name="x")
        tf.placeholder(tf.float32, [None, 3], name="unused")
        factor = tf.placeholder_with_default(tf.constant(2.0), [], name="factor")
        tf.multiply(x, factor, name="out")
    with open(os.path.join(folder, "optional.pb"), "wb") as file:
        file.write(graph.as_graph_def().SerializeToString())


def layouts_torch(folder):
    from typing import Dict, List

    import torch

    class TakesDict(torch.nn.Module):
        def forward(self, inputs: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
            return {"out": inputs["x"] + inputs["y"]}

    class Named(torch.nn.Module):
        def forward(self, x, y):
            return {"out": x + y}

    class Single(torch.nn.Module):
        def forward(self, x, y):
            return x + y

    class Texts(torch.nn.Module):
        def forward(self, x: List[str], y: List[str]):
            out: List[str] = []
            for i in range(len(x)):
                out.append(x[i] + y[i])
            return {"out": out}

    class TextsSingle(torch.nn.Module):
        def forward(self, x: List[str], y: List[str]):
            out: List[str] = []
            for i in range(len(x)):
                out.append(x[i] + y[i])
            return out

    class Mixed(torch.nn.Module):
        def forward(self, x: List[str], y):
            return {"out": y * len(x)}

    class Optional(torch.nn.Module):
        def forward(self, x, y: torch.Tensor = torch.ones(1), times: float = 1.0):
            return {"out": (x + y) * times}

    for module in (TakesDict(), Named(), Single(), Texts(), TextsSingle(), Mixed(), Optional()):
        torch.jit.save(torch.jit.script(module), os.path.join(folder, type(module).__name__ + ".pt"))


def sklearn(folder):
    import joblib
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier().fit([[0.0], [1.0], [2.0]], [7, 8, 9])
    joblib.dump(model, os.path.join(folder, "tree.joblib"))


def keras(folder):
    from keras_models import affine_model, save

    save(folder, affine_model, ".h5")


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
