"""The modules that are copied beside an exported file as `load.py`: one for each format, without this toolkit."""
