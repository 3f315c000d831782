"""``mrn inspect``: a foreign bundle is data, and all else in it is a difference that is listed."""

from mrn_components.app.inspect.bundle import check_data, inspect_bundle, open_bundle
