"""What the settings of every trainer share: ranges, and when a training ends early."""
