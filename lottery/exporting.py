"""Tickets in other formats, by their public address; the code lives in `lottery.exports`."""

from lottery.exports.exporting import export as export_ticket

__all__ = ["export_ticket"]
