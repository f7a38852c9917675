"""The Twisted floor: connections, services and ways out around the core."""
