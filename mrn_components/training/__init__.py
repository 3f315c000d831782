"""Objectives, mSupMoCo, optimiser groups and the handlers of a training."""
