"""The paper's network (Figures 1-3) and its baselines, one component a file."""
