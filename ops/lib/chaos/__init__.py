"""What ops/chaos does: a cluster that is broken on purpose, numbered messages through it, and a check of what arrived."""
