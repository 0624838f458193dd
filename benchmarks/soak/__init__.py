"""Calls of many kinds, while workers are killed every second: does each end as it should, and does anything stay behind?"""
