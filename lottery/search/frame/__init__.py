"""The frame of a search: what is trained, on what, by what. Every study of a search starts from the same one."""
