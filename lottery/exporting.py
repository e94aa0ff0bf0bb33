"""Tickets in other formats, by their public address; the code lives in `lottery.exports`."""

from lottery.exports.exporting import export_ticket as export_ticket
