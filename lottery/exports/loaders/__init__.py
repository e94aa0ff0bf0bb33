"""What becomes `load.py` beside an exported file: a module for each format, which needs nothing of this toolkit."""
