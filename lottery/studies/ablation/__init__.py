"""Controls: each breaks one thing of a ticket on purpose."""
