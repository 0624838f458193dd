"""TensorFlow's and Keras's faces where TensorFlow is installed: tensors in, tensors out. test_dropin.py runs this, with workers in the same interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as real

from opexec.dropin import tensorflow as tf


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    class Module(real.Module):
        @real.function(input_signature=[real.TensorSpec((None, 2), real.float32, "x")])
        def double(self, x: Any) -> Any:
            return {"y": 2 * x}

    folder = tmp_path_factory.mktemp("models") / "saved"
    module = Module()
    real.saved_model.save(module, str(folder), signatures=module.double)
    return folder


def test_a_signature_gives_tensors_for_tensors_and_arrays_for_arrays(saved: Path) -> None:
    x = np.array([[1, 2], [3, 4]], np.float32)
    with tf.saved_model.load(str(saved)) as loaded:
        infer = loaded.signatures["serving_default"]
        y = infer(x=tf.constant(x))["y"]
        assert isinstance(y, real.Tensor)
        np.testing.assert_array_equal(y.numpy(), 2 * x)
        y = infer(x=x)["y"]
        assert isinstance(y, np.ndarray)
        np.testing.assert_array_equal(y.numpy(), 2 * x)
        np.testing.assert_array_equal(tf.reduce_sum(y), 20)


def test_a_keras_model_gives_tensors_for_tensors_and_arrays_from_predict(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    model = real.keras.Sequential([real.keras.layers.Input((2,)), real.keras.layers.Rescaling(2.0)])
    model.save(path)
    x = np.array([[1, 2], [3, 4]], np.float32)
    with tf.keras.models.load_model(path) as loaded:
        y = loaded(tf.constant(x))
        assert isinstance(y, real.Tensor)
        np.testing.assert_array_equal(y.numpy(), model(x).numpy())
        for given in (x, tf.constant(x)):
            y = loaded.predict(given, verbose=0)
            assert type(y) is np.ndarray
            np.testing.assert_array_equal(y, model.predict(x, verbose=0))
        assert loaded.input_shape == model.input_shape and loaded.output_shape == model.output_shape


def test_everything_else_is_tensorflows_own() -> None:
    assert tf.constant is real.constant and tf.keras.layers is real.keras.layers
    assert tf.saved_model.save is real.saved_model.save and tf.__version__ == real.__version__
