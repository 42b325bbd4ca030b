-- KEYS: 1 versions   ARGV: 1 topic, 2 channel   -> the topic's new version
-- The counter moves with the announcement, so that a lost announcement is found by reading the counter.
local version = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PUBLISH', ARGV[2], ARGV[1])
return version
