"""``mrn inspect``: whether a foreign bundle may run, found without running any of it.

A guard, not a sandbox; SECURITY.md says what it holds off and what it does not.
"""

from mrn_components.app.inspect.bundle import Problem, inspect_bundle, require_trusted

__all__ = ["Problem", "inspect_bundle", "require_trusted"]
