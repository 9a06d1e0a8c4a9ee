"""Tools for tests, ours and yours: a scripted engine, a fault plan."""
