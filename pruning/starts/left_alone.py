"""What an initializer or a repair says of a weight that it is not meant for."""


class LeftAlone(Exception):
    """Raised for a weight that a scheme or a repair does not change: it stays as it is; the message says why."""
