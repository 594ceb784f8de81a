"""Processes of known density and students too small to fit: what each loss minimises, predicted."""
