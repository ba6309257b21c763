"""The hub's page and its figures for Prometheus: a process beside the hub, so that neither a slow reader nor a fault here touches it."""
