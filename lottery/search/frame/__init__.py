"""The frame of a search: model, data and trainer. Every study of a search starts from the same frame."""
