"""The rooms behind `opexec.Environment`: finding interpreters, choosing versions, building, keeping and naming what was built."""
