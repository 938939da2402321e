"""Merging adapters into one: adapters in, adapter out, without the base model."""
