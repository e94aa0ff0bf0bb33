"""Before the first level: what was asked is checked and made ready."""
