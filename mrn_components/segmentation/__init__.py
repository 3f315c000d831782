"""Segmentation of the nuclei with nnU-Net v2 (section 4.1.2)."""
