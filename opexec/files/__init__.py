"""Folders and files of this program's own: caches, files that are written whole or not at all, tensors from and to files."""
