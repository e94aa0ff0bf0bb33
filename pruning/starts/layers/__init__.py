"""Starts of special layers: recurrent ones by their eigenvalues, graph layers, 1-Lipschitz layers."""
