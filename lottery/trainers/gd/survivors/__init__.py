"""Networks of any architecture, layers of which train their survivors alone."""
