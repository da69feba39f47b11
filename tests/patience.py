"""How long tests wait for other processes."""

PATIENCE = 900
"""Seconds until a test that waits for another process fails. Only a hang takes so long, also on a machine that is busy
with other work: no test measures speed."""
