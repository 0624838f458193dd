"""Comparing models of one problem."""
