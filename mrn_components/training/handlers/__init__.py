"""Handlers of a training run: what an Ignite trainer carries besides its loss."""
