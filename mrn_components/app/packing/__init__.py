"""What ``scripts/pack_bundle.py`` puts into a zip that needs nothing else of ours."""
