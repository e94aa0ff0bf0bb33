"""The settings, and where their values come from: flags, files, recipes, defaults."""
