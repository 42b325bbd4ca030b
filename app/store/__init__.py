"""Everything that gateways share: the one path to a Redis-protocol server, and the server that comes along."""
