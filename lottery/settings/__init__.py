"""What people may set, and how a value gets there: flags, files, recipes, defaults."""
