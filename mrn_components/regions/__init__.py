"""Regions of interest: from an image and its mask to the crops that the network sees."""
