"""Settings that came later: their defaults are not recorded, so that runs from before are found again."""

from __future__ import annotations

import types

LATER = types.MappingProxyType({"later": True})
"""Metadata of such a field of a configuration."""
