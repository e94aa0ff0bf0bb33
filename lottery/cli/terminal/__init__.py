"""How commands speak: what they print, warn of, and trust."""
