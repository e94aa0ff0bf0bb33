"""Before the first level: the request is checked, and the search is prepared."""
