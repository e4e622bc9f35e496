"""Turning files of each modality into stored data sets, once."""
