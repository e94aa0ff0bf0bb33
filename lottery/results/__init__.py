"""What a search found, as plain data: levels, statistics, tables, figures, cards."""
