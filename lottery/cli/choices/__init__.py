"""What there is to choose from: settings as flags, lists and pages; and the names of everything."""
