"""Small networks of many kinds, and what the toolkit does with each of them: `python -m tests.architectures`."""
