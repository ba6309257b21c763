"""Many robots: wire, spool, hub, store, keys, catalogue, rollouts. Nothing lost, nobody let in, no bad policy past the first robot."""
