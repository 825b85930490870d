"""The name that the networks and the parallel step share."""

# Statistics and gradients are averaged over this axis, whatever makes it (pmap or shard_map).
DEVICE_AXIS = "devices"
