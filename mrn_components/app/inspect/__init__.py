"""``mrn inspect``: a foreign bundle is data, and all else in it is a difference that is listed.

A guard, not a sandbox; SECURITY.md says what it holds off and what it does not.
"""

from mrn_components.app.inspect.bundle import inspect_bundle, open_bundle
