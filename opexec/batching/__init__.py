"""Dynamic batching: calls made at the same time are joined along a symbol of the specs, run as one, and split again.

`policy` is what the user decides, `seam` where the tensors are joined, `room` the shared memory that they are joined in, `batch` the calls
of one batch, `batcher` which call goes when, `sending` what becomes of a batch, `model` the model that the user holds. A model without
batching has nothing of this.
"""
