"""What isolation adds to a call of each framework: the same model in process and through opexec, side by side.

`environments` lists the frameworks; `writing` has each write its models in its own environment; `in_process` is the timing loop that runs
there, `isolated` the call through opexec; `comparing` measures both in turn, beside the floors; `table` writes it down.
"""
