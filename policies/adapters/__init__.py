"""Our vector environment under the interfaces of other learning libraries; each module needs its library."""
