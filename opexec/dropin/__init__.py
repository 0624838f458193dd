"""Faces of other libraries, for programs that are written already: change the import, say where the model runs, and nothing else.

    from opexec.dropin import onnxruntime as ort
    session = ort.InferenceSession("net.onnx", env=Environment("3.7", ["onnxruntime==1.4.0"]))

One module for each library, called like it. What a module does not replace comes from the library itself, where the caller has it. Each
loaded object has `opexec_model`, the `opexec.Model` behind it, `close()`, and is a context manager. docs/drop-in.md lists what each offers.
"""
